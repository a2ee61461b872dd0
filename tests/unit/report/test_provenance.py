"""Provenance: model, flags, data and versions of a result."""

import numpy
from support.models import manifest_of

from carvana_ray import config
from carvana_ray.report.provenance import data_digest, provenance


def test_a_part_names_its_model_flags_data_and_versions() -> None:
    manifest = manifest_of(b"weights")
    found = provenance(config.EvaluateFlags(data="photos"), manifest, "/photos", {"a.jpg": 1})
    assert found["model"] == manifest.sha256
    assert sorted(found) == ["lineage", "made", "model"]
    facts = found["lineage"]
    assert facts["model"]["downscale"] == 8
    assert facts["configuration of its training"] == {"seed": 3}
    assert facts["configuration of this job"]["data"] == "photos"
    assert facts["data"]["pictures"] == 1
    assert facts["versions"]["numpy"] == numpy.__version__


def test_the_digest_is_of_names_and_bytes_in_any_order() -> None:
    digest = data_digest({"a.jpg": 1, "b.jpg": 2})
    assert digest == data_digest({"b.jpg": 2, "a.jpg": 1})
    assert len({digest, data_digest({"a.jpg": 1}), data_digest({"a.jpg": 1, "b.jpg": 3})}) == 3
