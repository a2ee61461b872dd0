"""Counts, bytes and durations as words for messages."""


def count_of(count: int, plural: str, done: int = 0) -> str:
    """Return a count with its noun: ``1 image``, ``100,064 images, 256 of them already done``."""
    text = f"{count:,} {plural if count != 1 else plural.removesuffix('s')}"
    return f"{text}, {done:,} of them already done" if done else text


def format_bytes(count: int) -> str:
    """Return a number of bytes with its unit: ``12 MB``, ``1.3 GB``, ``61 GB``."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9)):
        if count >= 0.9995 * scale:
            value = count / scale
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:,.0f} {unit}"
    return f"{count / 1e6:,.0f} MB"


def format_duration(seconds: float) -> str:
    """Return a duration with its unit: ``50 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def format_rough(seconds: float) -> str:
    """Return a duration that is not known well: ``1 min``, ``25 min``, ``3 h``, ``2 days``."""
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 9.5:
        return f"{max(round(minutes), 1)} min"
    if minutes < 57.5:
        return f"{5 * round(minutes / 5)} min"
    if hours < 2.75:
        return f"{round(2 * hours) / 2:g} h"
    return f"{round(hours)} h" if hours < 47.5 else f"{round(hours / 24)} days"


def short_path(uri: str, folder: str) -> str:
    """Return the path relative to a folder if it is below that folder, else the URI as it is."""
    prefix = folder.rstrip("/") + "/"
    return uri.removeprefix(prefix) if len(prefix) > 1 else uri
