"""The images of a cut-out job, by its flags. Imports no torch: jobs list them before they start."""

from carvana_ray import storage
from carvana_ray.config import CutoutFlags
from carvana_ray.cutouts import index
from carvana_ray.data.collect import CollectedImages, collect_images


def image_uris(flags: CutoutFlags) -> list[str]:
    """Return the URIs of the images and folders that the flags name."""
    return [storage.resolve(uri) for uri in flags.pictures or (flags.data,)]


def list_sources(flags: CutoutFlags) -> CollectedImages:
    """Return the images of a job; raises as `collect_images`."""
    return collect_images(
        image_uris(flags),
        recursive=flags.recursive and not flags.submission,
        avoid=[storage.resolve(flags.out)],
        marker=index.FILE,
    )
