"""Map of the pages that turn cars: names of a car's cut-outs in, its page and thumbnail out.

Imports no torch, as `write_cutouts`.
"""

import numpy as np

from carvana_ray import storage
from carvana_ray.errors import BadImageError, InputError, first_line
from carvana_ray.images.validate import MAX_BYTES
from carvana_ray.report import viewer
from carvana_ray.stages.ingest.blocks import Columns, single_row
from carvana_ray.stages.ingest.read_images import require_readable


def write_viewer(batch: Columns, target: str, folder: str) -> Columns:
    """Write the page of a car and then its thumbnail; the thumbnail's name says what they show.

    Args:
        batch: one row: ``car`` (its name), ``cutouts`` (paths of its views in order), ``views``
            (their number), ``page`` and ``thumbnail`` (paths), ``outdated`` (paths of older
            thumbnails), ``index`` (of the index, relative to the page).
        target: URI of the folder of cut-outs.
        folder: URI of the folder of pages.

    Returns:
        columns [1]: ``car``, ``count`` of the views that it shows, and ``problem``: why its page
        could not be written, or "".
    """
    row = single_row(batch)
    try:
        _write(row, target, folder)
        problem = ""
    except (BadImageError, InputError, OSError) as error:
        problem = first_line(error)
    values = {"car": row["car"], "count": len(row["cutouts"]), "problem": problem}
    return {name: np.array([value]) for name, value in values.items()}


def _write(row: Columns, target: str, folder: str) -> None:
    uris = [storage.join(target, name) for name in row["cutouts"]]
    files = map(require_readable, storage.read_many(uris, MAX_BYTES))
    views = viewer.on_one_canvas([viewer.load_view(file, len(uris)) for file in files])
    page = viewer.render_viewer(str(row["car"]), views, int(row["views"]), str(row["index"]))
    storage.write_atomic(storage.join(folder, str(row["page"])), page, replace=True)
    thumbnail = viewer.thumbnail(views[0])
    storage.write_atomic(storage.join(folder, str(row["thumbnail"])), thumbnail, replace=True)
    for name in row["outdated"]:
        storage.remove(storage.join(folder, str(name)))
