"""Write a model as an ONNX file: ``python jobs/export.py MODEL_FOLDER``."""

import logging
import sys
import time
from typing import Any

from carvana_ray import config, errors
from carvana_ray.config import cli
from carvana_ray.stages import runner as job

EXAMPLES = """examples:
  python jobs/export.py runs/first/model
  python jobs/export.py runs/first/model --out car.onnx --data photos   # checked with these
  python jobs/export.py runs/first/model --out gray.onnx --input gray   # gray levels on the grid
"""

log = logging.getLogger("export")


def export(flags: config.ExportFlags) -> dict[str, Any]:
    """Write the file, once its masks are those of torch; return the job's result. No Ray."""
    # torch takes seconds to import: --help does not need it
    from carvana_ray import storage
    from carvana_ray.checkpoints import model as checkpoint
    from carvana_ray.export import onnx, verify

    began = time.monotonic()
    out = storage.resolve(flags.out_uri)
    onnx.require_packages(*onnx.EXPORT_PACKAGES)
    network, manifest = checkpoint.load_model(storage.resolve(flags.model))
    checked = onnx.is_installed(onnx.RUNTIME_PACKAGE)
    pictures = _pictures(flags) if checked else []
    log.info("export: writing the network as ONNX, opset %d; half a minute or so", onnx.OPSET)
    data = onnx.to_onnx(network, manifest, flags.input)
    result: dict[str, Any] = {"onnx": out, "input": flags.input, "bytes": len(data)}
    if checked:
        result |= verify.verify(data, network, manifest, pictures)
    else:
        log.warning(
            "export: NOT checked, there is no %s: %s", onnx.RUNTIME_PACKAGE, onnx.install_command()
        )
        result |= {"images": 0, "pixels_differ": None, "dice": None}
    storage.write_atomic(out, data, replace=True)
    return result | {"seconds": round(time.monotonic() - began, 1)}


def _pictures(flags: config.ExportFlags) -> list[bytes]:
    """Return the files to check with: from all over --data, or drawn.

    Raises:
        InputError: no pictures there, or one that cannot be used.
    """
    import numpy as np

    from carvana_ray import images, storage
    from carvana_ray import sample as studio
    from carvana_ray.data import catalog as catalogue

    if not flags.data:
        log.info("export: drawing %d pictures to check with", flags.limit)
        rng = np.random.default_rng(0)
        drawn = (
            studio.photograph(studio.draw_car(rng), 1 + 3 * number % 16, rng)
            for number in range(flags.limit)
        )
        return [studio.encode_jpeg(image) for image, _ in drawn]
    folder, entries = catalogue.list_images(storage.resolve(flags.data))
    few = entries[:: -(-len(entries) // flags.limit)]
    pictures = []
    for entry in few:
        uri = storage.join(folder, entry.name)
        pictures.append(storage.read(uri))
        try:
            images.load_rgb(pictures[-1])
        except errors.BadImageError as error:
            raise errors.InputError(f"--data {uri}: {error}") from error
    return pictures


def main(argv: list[str] | None = None) -> int:
    """Run the job; return its exit code."""
    flags = cli.parse(config.ExportFlags, "export", argv, EXAMPLES)
    return job.run_guarded("export", lambda: export(flags), flags=flags)


if __name__ == "__main__":
    sys.exit(main())
