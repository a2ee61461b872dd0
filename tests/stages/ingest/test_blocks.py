"""Blocks of Ray Data: one row is one block, and a block is never split."""

import numpy as np
import pytest

from carvana_ray.stages.ingest.blocks import single_row, stack_or_object
from carvana_ray.stages.ingest.datasets import from_blocks


@pytest.mark.ray
def test_a_large_block_stays_whole(ray_session: None) -> None:
    import ray.data

    def ten_rows_of_30_mb(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"x": np.zeros((10, 30_000_000), dtype=np.uint8)}

    plain = ray.data.from_items([{"a": 0}], override_num_blocks=1)
    counts = []
    for dataset in (plain, from_blocks([{"a": 0}])):
        mapped = dataset.map_batches(ten_rows_of_30_mb, batch_size=None)
        counts.append([bundle.num_rows() for bundle in mapped.iter_internal_ref_bundles()])
    assert len(counts[0]) > 1, "the test needs a block that Ray Data would split"
    assert counts[1] == [10]


def test_a_batch_of_one_row_is_that_row() -> None:
    assert single_row({"a": [1], "b": [[2, 3]]}) == {"a": 1, "b": [2, 3]}
    with pytest.raises(RuntimeError, match="a block of 2 rows"):
        single_row({"a": [1, 2]})


def test_arrays_of_one_shape_are_stacked_and_others_are_kept_apart() -> None:
    one, other = np.zeros((2, 3), np.uint8), np.ones((2, 4), np.uint8)
    assert stack_or_object([one, one]).shape == (2, 2, 3)
    mixed = stack_or_object([one, other])
    assert mixed.dtype == object
    assert [array.shape for array in mixed] == [(2, 3), (2, 4)]
