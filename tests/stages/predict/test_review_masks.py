"""The review of a prediction: which masks a person should look at."""

from pathlib import Path

import numpy as np
import pytest
from support.shard_files import write_shard

from carvana_ray.data.catalog import Catalog
from carvana_ray.stages.predict.review_masks import review_masks


@pytest.mark.ray
def test_a_review_that_fails_gives_its_reason_and_does_not_fail_the_job(
    tmp_path: Path, ray_session: None
) -> None:
    part = write_shard(tmp_path, [np.ones((8, 8), dtype=bool)] * 2, bad=set())
    catalog = Catalog(str(tmp_path), list(part.images), ["car_01.jpg"], None, {})
    (tmp_path / part.shard_name(0)).write_bytes(b"torn")
    review, crcs = review_masks(str(tmp_path), str(tmp_path), [part], catalog, 2)
    assert review["problem"]
    assert (review["looked"], review["figures"], crcs) == (0, [], {})
    assert not (tmp_path / "review.csv").exists()
