"""Cut cars out of studio photographs, at the scale of a catalog, as a job on a Ray cluster."""

__version__ = "0.1.0"
