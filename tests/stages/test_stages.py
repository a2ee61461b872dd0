"""Each map of a stage alone and inside a real Ray Data: the same result, in the order asked for."""

import dataclasses
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from carvana_ray import rle, storage
from carvana_ray.data import quarantine
from carvana_ray.data.catalog import Catalog
from carvana_ray.review import shape as silhouette
from carvana_ray.stages.ingest import blocks as dataset
from carvana_ray.stages.ingest import crash_isolation as poison
from carvana_ray.stages.predict import measure_masks as look
from carvana_ray.stages.predict import review_masks as review
from carvana_ray.storage import FileInfo
from carvana_ray.submission import shards
from carvana_ray.submission.plan import PlanPart


@pytest.mark.ray
def test_the_name_whose_work_kills_its_process_is_found(ray_session: None) -> None:
    def work(name: str) -> None:
        if name == "kills":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "raises":
            raise ValueError("an error is not a death")

    assert poison.find_crashing(["a", "kills", "raises", "b"], work) == ["kills"]
    assert poison.find_crashing(["a", "raises"], work) == []


@pytest.mark.ray
def test_a_block_stays_whole_however_large(ray_session: None) -> None:
    import ray.data

    def ten_rows_of_30_mb(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"x": np.zeros((10, 30_000_000), dtype=np.uint8)}

    cut = ray.data.from_items([{"a": 0}], override_num_blocks=1)
    counts = []
    for blocks in (cut, dataset.from_blocks([{"a": 0}])):
        mapped = blocks.map_batches(ten_rows_of_30_mb, batch_size=None)
        counts.append([bundle.num_rows() for bundle in mapped.iter_internal_ref_bundles()])
    assert len(counts[0]) > 1, "the test needs a block that Ray Data would cut"
    assert counts[1] == [10]


def written_shard(folder: Path, masks: list[np.ndarray], bad: set[int]) -> PlanPart:
    """Write the one shard of a plan of masks; return the plan."""
    names = [f"car_{number:02d}.jpg" for number in range(1, len(masks) + 1)]
    part = PlanPart(1, tuple(FileInfo(name, 1, "1") for name in names), 1)
    rows = {
        "img": names,
        "rle_mask": ["" if n in bad else rle.encode(mask) for n, mask in enumerate(masks)],
        "height": [mask.shape[0] for mask in masks],
        "width": [mask.shape[1] for mask in masks],
        "crc32": list(range(len(masks))),
        "orientation": [1] * len(masks),
        "status": ["truncated: x" if n in bad else quarantine.OK for n in range(len(masks))],
        "row": list(range(len(masks))),
        "rows": [len(masks)] * len(masks),
    }
    data = shards.serialize_shard(pa.table(rows), shards.shard_key(folder.name, part, 0))
    storage.write_atomic(str(folder / part.shard_name(0)), data)
    return part


def test_the_second_look_sees_the_masks_of_the_catalogue_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random((30, 40)) < 0.5 for _ in range(4)]
    part = written_shard(tmp_path, masks, bad={3})
    uri = str(tmp_path / part.shard_name(0))
    found = look.measure_masks({"uri": [uri], "keep": [[True, False, True, True]]})
    assert found["img"].tolist() == ["car_01.jpg", "car_03.jpg", "car_04.jpg"]
    assert found["crc32"].tolist() == [0, 2, 3]
    assert found["status"].tolist() == ["ok", "ok", "truncated: x"]
    assert found["area"].tolist() == [masks[0].sum(), masks[2].sum(), 0]
    for place, mask in ((0, masks[0]), (1, masks[2])):
        facts = silhouette.measure(rle.encode(mask), *mask.shape)
        assert {name: found[name][place] for name in look.FIELDS} == dataclasses.asdict(facts)


@pytest.mark.ray
def test_a_list_that_cannot_be_made_says_why_and_costs_nothing(
    tmp_path: Path, ray_session: None
) -> None:
    part = written_shard(tmp_path, [np.ones((8, 8), dtype=bool)] * 2, bad=set())
    catalogue = Catalog(str(tmp_path), list(part.images), ["car_01.jpg"], None, {})
    (tmp_path / part.shard_name(0)).write_bytes(b"torn")
    found, crcs = review.review_masks(str(tmp_path), str(tmp_path), [part], catalogue, 2)
    assert found["problem"]
    assert (found["looked"], found["figures"], crcs) == (0, [], {})
    assert not (tmp_path / "review.csv").exists()
