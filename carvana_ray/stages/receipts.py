"""Receipts of the steps of a pipeline: a step that has nothing to do is known by hashes.

    OUT/receipts/evaluate.json  predict.json        work, files and result of a finished step

`work` is a hash of everything that the result depends on. `files` are the states of the files that
the step has written, and a hash of the listing of each folder. A step whose receipt has the same
work and whose files are as the step left them has nothing to do. Everything else, a damaged receipt
too, means that it runs.
"""

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carvana_ray import config, storage
from carvana_ray.config import cli
from carvana_ray.data.listing import scan_folder
from carvana_ray.errors import InputError, StorageAccessError
from carvana_ray.storage import FileInfo

if TYPE_CHECKING:  # torch takes seconds to import
    from carvana_ray.stages.evaluate import EvaluationJob
    from carvana_ray.stages.predict.plan_run import PredictInput

FOLDER = "receipts"
PACKAGE = Path(__file__).parents[1]
PACKAGES = "ray", "torch", "numpy", "pillow", "pyarrow", "matplotlib", "jinja2"
WORST_SHEET = "sheets/worst.jpg"  # of the evaluation; the other sheets are of the prediction
LOG_FLAGS = "quiet", "verbose"  # the others may change a result or its report


@dataclass(frozen=True)
class Receipt:
    """The receipt of a step in a folder of results.

    Attributes:
        out: URI of all results.
        step: name of the step.
        work: result of `hash_work`.
    """

    out: str
    step: str
    work: str

    @property
    def uri(self) -> str:
        """URI of the receipt."""
        return storage.join(self.out, FOLDER, f"{self.step}.json")

    def load(self) -> dict[str, Any] | None:
        """Return the result of the step if it has nothing to do, else None."""
        try:
            noted = json.loads(storage.read(self.uri))
            files, folders, result = noted["files"], noted["folders"], noted["result"]
            # The page changes with the parts of other commands, so it only has to exist.
            same = (
                noted["work"] == self.work
                and states(files) == files
                and listings(folders) == folders
                and storage.exists(result["report"])
            )
            return dict(result) if same else None
        except StorageAccessError:
            raise
        except (InputError, ValueError, TypeError, KeyError, AttributeError):
            return None  # missing or damaged

    def write(
        self, result: Mapping[str, Any], files: Sequence[str], folders: Sequence[str]
    ) -> None:
        """Note that the step is finished.

        Args:
            result: of the step.
            files, folders: URIs of what the step has written.
        """
        noted = {
            "work": self.work,
            "files": states(files),
            "folders": listings(folders),
            "result": result,
        }
        storage.write_atomic(self.uri, json.dumps(noted, indent=1).encode(), replace=True)


def may_be_finished(out: str) -> bool:
    """Return whether an earlier pipeline has noted its last step below a URI."""
    return storage.exists(storage.join(out, FOLDER, "predict.json"))


def write_evaluation(receipt: Receipt, result: Mapping[str, Any]) -> None:
    """Note a finished evaluation."""
    names = "evaluation.json", "evaluation.csv", WORST_SHEET, "report/evaluate.json"
    receipt.write(result, [storage.join(receipt.out, name) for name in names], [])


def write_prediction(
    receipt: Receipt, flags: config.PredictFlags, result: Mapping[str, Any]
) -> None:
    """Note a finished prediction, unless it has bad images: their files may be repaired."""
    if result["bad"] or not result["submission"]:
        return
    out, marker = receipt.out, storage.resolve(flags.marker_uri)
    files = [storage.join(out, name) for name in ("review.csv", "report/predict.json")]
    sheets = [f"sheets/{file.name}" for file in storage.list_files(storage.join(out, "sheets"))]
    files += [storage.join(out, name) for name in sheets if name != WORST_SHEET]
    run = storage.join(out, "predict", json.loads(storage.read(marker))["run"])
    shards = [storage.join(run, name) for name in storage.list_dirs(run)]
    receipt.write(result, [result["submission"], marker, *files], [run, *shards])


def states(uris: Iterable[str]) -> dict[str, str]:
    """Return the state of each file, "" for a missing one."""
    return {uri: storage.state(uri) for uri in uris}


def listings(uris: Iterable[str]) -> dict[str, str]:
    """Return a hash of the names, sizes and versions of the files in each folder.

    Raises:
        InputError: a folder does not exist.
    """
    return {uri: hash_files(storage.list_files(uri)) for uri in uris}


def hash_files(files: Iterable[FileInfo]) -> str:
    """Return the SHA-256 of a line for each file of a listing."""
    lines = "".join(f"{file.name}\t{file.size}\t{file.version}\n" for file in files)
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def hash_work(flags: config.RayFlags, **parts: Any) -> str:
    """Return the SHA-256 of a step's flags and other input, of this code and its packages."""
    given = {k: v for k, v in cli.to_json(flags).items() if k not in LOG_FLAGS}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    work = {"flags": given, "code": code_hash(), "versions": versions, **parts}
    return hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()


@functools.cache
def code_hash(package: Path = PACKAGE) -> str:
    """Return the SHA-256 of the files of a package; 1 MB, read in 20 ms."""
    total = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            total.update(f"{path.relative_to(package)}\n{path.stat().st_size}\n".encode())
            total.update(path.read_bytes())
    return total.hexdigest()


def of_evaluation(flags: config.EvaluateFlags, job: "EvaluationJob") -> Receipt:
    """Return the receipt of an evaluation: model, images, masks, cars."""
    _, skipped = scan_folder(job.folder)
    work = hash_work(
        flags,
        model=job.manifest.sha256,
        run=job.manifest.run,
        history=job.history,
        folder=job.folder,
        masks=job.masks,
        pairs=hash_files(file for pair in job.pairs for file in pair),
        cars=[job.cars.parse(image.name) for image, _ in job.pairs],
        skipped=dict(skipped),
    )
    return Receipt(storage.resolve(flags.out), "evaluate", work)


def of_prediction(flags: config.PredictFlags, given: "PredictInput") -> Receipt:
    """Return the receipt of a prediction: model, images, their order, checksums and cars."""
    catalog = given.catalog
    work = hash_work(
        flags,
        model=given.manifest.sha256,
        folder=catalog.folder,
        images=hash_files(catalog.entries),
        order=catalog.order,
        size=catalog.size,
        crcs=catalog.crcs,
        cars=[catalog.cars.parse(image.name) for image in catalog.entries],
        skipped=dict(catalog.skipped),
    )
    return Receipt(storage.resolve(flags.out), "predict", work)
