"""Counts the images of a pass of a cut-out job."""

from collections.abc import Sequence

from carvana_ray.data.quarantine import Bad, FailureLimits, is_good
from carvana_ray.images.scale import ScaleCount
from carvana_ray.stages.cutout.write_cutouts import PROBLEM
from carvana_ray.stages.ingest.blocks import Columns


def rows_of(batch: Columns) -> list[Bad]:
    """Return name, status and CRC-32 of the images of a block of results."""
    columns = (batch[name].tolist() for name in ("img", "status", "crc32"))
    return list(zip(*columns, strict=True))


class CutoutTally:
    """Counts the cut-outs and the bad images, and ends the run early when too much fails."""

    def __init__(self, limits: FailureLimits, trained: tuple[int, int] | None = None) -> None:
        self.written, self.bad = 0, list[Bad]()
        self.scales = ScaleCount(trained) if trained else None
        self._limits = limits

    def count_sizes(self, pixels: Sequence[int]) -> None:
        """Note the numbers of pixels of images that the network has seen."""
        for count in pixels:
            if self.scales:
                self.scales.add(count)

    def add(self, rows: Sequence[Bad]) -> None:
        """Add the images of a block.

        Raises:
            InputError: too many images are bad.
            IncompleteError: nothing could be done in several blocks in a row.
        """
        failures = []
        for row in rows:
            name, status, _ = row
            if is_good(status):
                self.written += 1
            elif status.startswith(PROBLEM):
                failures.append(status.removeprefix(f"{PROBLEM}: "))
            else:
                self.bad.append(row)
                self._limits.count_bad(len(self.bad), f"{name} ({status})")
        self._limits.add_block(failures, usable=len(failures) < len(rows))
