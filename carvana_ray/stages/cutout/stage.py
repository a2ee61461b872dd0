"""Cut-outs: pictures in, a file with a transparent or another background for each.

check -> ledger (what is left to do) -> cutting -> quarantine.csv

Whatever crashes, the same command again does what is left: `ledger.open_for` says what that is.
"""

import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from carvana_ray import config, storage
from carvana_ray.checkpoints import model as checkpoint
from carvana_ray.checkpoints.model import ModelManifest
from carvana_ray.cutouts import compositing as cutout
from carvana_ray.cutouts import index as ledger
from carvana_ray.cutouts.compositing import CutoutStyle
from carvana_ray.cutouts.index import SourceImage
from carvana_ray.data import catalog as catalogue
from carvana_ray.data import checksums, csv_reader, quarantine
from carvana_ray.data.quarantine import OK, Bad, FailureLimits
from carvana_ray.errors import BadImagesError
from carvana_ray.runtime import preflight as outlook
from carvana_ray.runtime.resources import ClusterResources, allocate_workers
from carvana_ray.stages import ray_metrics as gauges
from carvana_ray.stages.cutout import write_cutouts as compose
from carvana_ray.stages.cutout.datasets import CutoutJob
from carvana_ray.stages.ingest import read_images as reading
from carvana_ray.stages.predict.mask_predictor import read_options
from carvana_ray.storage import FileInfo

log = logging.getLogger(__name__)

FOLDER = "cutouts"


@dataclass(frozen=True)
class Checked:
    """What is known before anything starts.

    Attributes:
        folder: above all pictures.
        entries: the pictures, named from there on. With a submission its row is part of a
            picture's version.
        crcs: CRC-32 that a picture must have, where it is known.
        style: how cut-outs are to look.
        settings: all that they depend on, by flag.
        manifest: of the model; None: the masks are a submission's.
    """

    folder: str
    entries: list[FileInfo]
    crcs: dict[str, int]
    style: CutoutStyle
    settings: dict[str, Any]
    manifest: ModelManifest | None


def check(flags: config.CutoutFlags) -> Checked:
    """Return what is asked for.

    Raises:
        InputError: model, masks, background or pictures cannot be, or --out cannot be written.
    """
    background = cutout.parse_background(
        flags.background, lambda uri: storage.read(storage.resolve(uri), reading.MAX_BYTES)
    )
    style = CutoutStyle(flags.soft, background, flags.format, flags.mask_only)
    crcs: dict[str, int] = {}
    if flags.pictures:
        folder, entries = catalogue.list_named_images(
            [storage.resolve(uri) for uri in flags.pictures]
        )
    else:
        data = storage.resolve(flags.data)
        folder, entries = catalogue.list_images(data)
        crcs = checksums.load_checksums(data)
    entries = entries[: flags.limit or None]
    manifest = None
    if flags.submission:
        rows = csv_reader.digests(
            storage.resolve(flags.submission), [entry.name for entry in entries]
        )
        entries = [
            dataclasses.replace(one, version=f"{one.version} {rows[one.name]}") for one in entries
        ]
    else:
        _, manifest = checkpoint.load_model(storage.resolve(flags.model_uri))
    out = storage.resolve(flags.out)
    storage.require_writable(out)
    return Checked(folder, entries, crcs, style, _settings(flags, style, manifest), manifest)


def _settings(
    flags: config.CutoutFlags, style: CutoutStyle, manifest: ModelManifest | None
) -> dict[str, Any]:
    ground: Any = style.background or cutout.TRANSPARENT
    if isinstance(ground, bytes):
        ground = f"picture of SHA-256 {checkpoint.sha256(ground)}"
    return {
        "model": manifest.sha256 if manifest else "none, rows of a submission",
        "edge": "soft" if style.soft else "hard",
        "background": list(ground) if isinstance(ground, tuple) else ground,
        "format": style.format,
        "mask_only": style.mask_only,
        "downscale": manifest.downscale if manifest else None,
        "version": cutout.VERSION,
        **({"decode": flags.decode} if manifest and flags.decode != "cpu" else {}),
    }


def run(
    flags: config.CutoutFlags, cluster: ClusterResources, checked: Checked | None = None
) -> dict[str, Any]:
    """Make the cut-outs that are not there yet; return the job's result.

    Args:
        flags, cluster: what to do, and where.
        checked: what `check` has returned, if it was asked already.

    Raises:
        Quarantined: pictures could not be used; all others are cut out.
        Unfinished: pictures could not be reached, or cut-outs not be written.
    """
    began = time.monotonic()
    asked = checked or check(flags)
    workers = allocate_workers(flags, cluster)
    target = storage.join(storage.resolve(flags.out), FOLDER)
    storage.remove_stale_temps(target)
    todo = _left(asked, target)
    resumed = len(asked.entries) - len(todo)
    what = outlook.count_of(len(asked.entries), "pictures", resumed)
    kind = checkpoint.describe_model(asked.manifest) if asked.manifest else "masks of a submission"
    outlook.announce("cutout", f"{what}; {kind}", target, outlook.describe_workers(workers))
    seen, rate = CutoutTally(asked.folder, len(todo)), 0.0
    if todo:
        with gauges.meter("cut out", len(asked.entries), resumed) as meter:

            def see(rows: list[Bad]) -> None:
                seen.see(rows)
                meter.set(meter.done + len(rows))

            cutting = CutoutJob(todo, asked.folder, target, asked.crcs, asked.style, see)
            if asked.manifest:
                options = read_options(asked.folder, asked.manifest, None, workers)
                cutting.from_model(options, storage.resolve(flags.model_uri), workers)
            else:
                uri = storage.resolve(flags.submission)
                cutting.from_submission(uri, max(1, cluster.cpus - 1))
        rate = meter.rate
    seen.close()
    result = {
        "images": len(asked.entries),
        "written": seen.written,
        "resumed": resumed,
        "bad": len(seen.bad),
        "images_per_second": round(rate, 1),
        "seconds": round(time.monotonic() - began, 1),
        "cutouts": target,
    }
    _quarantine(flags, target, seen.bad, result)
    return result


def _left(asked: Checked, target: str) -> list[FileInfo]:
    """Return the pictures that are to be cut out."""
    by_uri = {storage.join(asked.folder, entry.name): entry for entry in asked.entries}
    sources = [
        SourceImage(storage.parent(uri), dataclasses.replace(entry, name=storage.name(uri)))
        for uri, entry in by_uri.items()
    ]
    by_name = ledger.by_output_name(sources, asked.style.suffix)
    left = ledger.sync(target, asked.settings, by_name, asked.style.suffix)
    return [by_uri[by_name[name].uri] for name in left]


class CutoutTally:
    """What has become of pictures; ends the run early where it is not the pictures' fault.

    Attributes:
        written: cut-outs.
        bad: pictures that cannot be used.
    """

    def __init__(self, folder: str, pictures: int) -> None:
        self.written, self.bad = 0, list[Bad]()
        self._limits = FailureLimits(folder, pictures, "cut-out")

    def see(self, rows: Sequence[Bad]) -> None:
        """Take name, status and CRC-32 of pictures.

        Raises:
            InputError: too many bad pictures.
            Unfinished: too many problems.
        """
        for row in rows:
            name, status, _ = row
            if status == OK:
                self.written += 1
            elif status.startswith(compose.PROBLEM):
                self._limits.add_failure(status.removeprefix(f"{compose.PROBLEM}: "))
            else:
                self.bad.append(row)
                self._limits.count_bad(len(self.bad), f"{name} ({status})")

    def close(self) -> None:
        """Raise `Unfinished` if there was a problem."""
        self._limits.raise_if_failed()


def _quarantine(
    flags: config.CutoutFlags, target: str, bad: list[Bad], result: dict[str, Any]
) -> None:
    """Write quarantine.csv; an older one goes where nothing is bad any more.

    Raises:
        Quarantined: there are bad pictures, and that is to be a failure.
    """
    if not bad:
        storage.remove(storage.join(target, quarantine.FILE))
        return
    uri = quarantine.write_csv(target, sorted(bad))
    said = f"{quarantine.summarize(bad, uri)}. All others are cut out"
    if flags.on_bad_picture == "skip":
        log.warning("%s", said)
        return
    raise BadImagesError(f"{said}; mend them and run again, or use --on-bad-picture skip", result)
