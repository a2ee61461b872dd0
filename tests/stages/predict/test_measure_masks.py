"""Shards in, the shape of each mask out."""

import dataclasses
from pathlib import Path

import numpy as np
from support.shard_files import write_shard

from carvana_ray import rle
from carvana_ray.review import shape
from carvana_ray.stages.predict.measure_masks import FIELDS, measure_masks


def test_only_the_masks_of_the_catalog_are_measured(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random((30, 40)) < 0.5 for _ in range(4)]
    uris = [
        str(tmp_path / folder / write_shard(tmp_path / folder, some, bad).shard_name(0))
        for folder, some, bad in (("a", masks[:1], set()), ("b", masks[1:], {2}))
    ]
    measured = measure_masks({"uris": [uris], "keep": [[True, False, True, True]]})
    assert measured["uri"].tolist() == [uris[0], uris[1], uris[1]]
    assert measured["img"].tolist() == ["car_01.jpg", "car_02.jpg", "car_03.jpg"]
    assert measured["crc32"].tolist() == [0, 1, 2]
    assert measured["status"].tolist() == ["ok", "ok", "truncated: x"]
    assert measured["area"].tolist() == [masks[0].sum(), masks[2].sum(), 0]
    for row, mask in ((0, masks[0]), (1, masks[2])):
        expected = dataclasses.asdict(shape.measure(rle.encode(mask), *mask.shape))
        assert {name: measured[name][row] for name in FIELDS} == expected
