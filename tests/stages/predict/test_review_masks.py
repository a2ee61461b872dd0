"""The review of a prediction: which masks a person should look at."""

from pathlib import Path

import numpy as np
import pytest
from support.shard_files import write_shard

from carvana_ray.data.catalog import Catalog
from carvana_ray.stages.engine import ray_engine
from carvana_ray.stages.predict.review_masks import _group_shards, review_masks
from carvana_ray.storage import FileInfo
from carvana_ray.submission.plan import PlanPart, plan_new


@pytest.mark.ray
def test_a_review_that_fails_gives_its_reason_and_does_not_fail_the_job(
    tmp_path: Path, ray_session: None
) -> None:
    part = write_shard(tmp_path, [np.ones((8, 8), dtype=bool)] * 2, bad=set())
    catalog = Catalog(str(tmp_path), list(part.images), ["car_01.jpg"], None, {})
    (tmp_path / part.shard_name(0)).write_bytes(b"torn")
    review, crcs = review_masks(str(tmp_path), str(tmp_path), [part], catalog, ray_engine())
    assert review["problem"]
    assert (review["looked"], review["figures"], crcs) == (0, [], {})
    assert not (tmp_path / "review.csv").exists()


def test_small_shards_share_a_task_and_each_wanted_image_is_in_one() -> None:
    images = [FileInfo(f"{number:05d}.jpg", 1, "1") for number in range(6000)]
    parts: list[PlanPart] = []
    for end in (5000, *range(5064, 6000, 64), 6000):  # a large part, then small ones
        part = plan_new(parts, images[:end])
        assert part is not None
        parts.append(part)
    wanted = set(images[100:]) - set(images[5200:5216])
    rows = _group_shards("runs", parts, wanted)
    shards = {
        f"runs/{part.shard_name(shard)}": part.shard(shard)
        for part in parts
        for shard in range(part.shards)
    }
    assert len(rows) < len(shards) / 3
    measured: list[FileInfo] = []
    for row in rows:
        entries = [entry for uri in row["uris"] for entry in shards[uri]]
        pairs = zip(entries, row["keep"], strict=True)
        measured += [entry for entry, keep in pairs if keep]
        assert len(row["uris"]) == 1 or len(entries) <= 256
        assert all(wanted.intersection(shards[uri]) for uri in row["uris"])
    assert len(measured) == len(wanted)
    assert set(measured) == wanted
