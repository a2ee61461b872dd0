"""The named recipes and their part in a run's id."""

import dataclasses
import json

import pytest

from carvana_ray.config.recipes import RECIPE_DEFAULTED, RECIPES, Recipe

# As run ids have hashed them from the first version on: keys, order and values.
HASHED = {
    "default": '{"norm": "batch", "init": "torch", "schedule": "one-cycle", "learning_rate": 0.002,'
    ' "muon_ratio": 25.0, "flip": true, "clip": 1.0, "edge_weight": 5.0, "fold": 1,'
    ' "jitter": false, "mirror": false, "downscale": 4, "epochs": 5, "batch_size": 8}',
    "2017": '{"norm": "none", "init": "glorot", "schedule": "flat", "learning_rate": 0.001,'
    ' "flip": false, "clip": null, "fold": 1, "jitter": false, "mirror": false, "downscale": 4,'
    ' "epochs": 5, "batch_size": 16}',
    "best": '{"norm": "batch", "init": "torch", "schedule": "one-cycle", "learning_rate": 0.002,'
    ' "muon_ratio": 25.0, "flip": true, "clip": 1.0, "edge_weight": 5.0, "fold": 4,'
    ' "jitter": true, "mirror": true, "downscale": 1, "epochs": 60, "batch_size": 8}',
    "starter": '{"norm": "batch", "init": "torch", "schedule": "one-cycle", "learning_rate": 0.002,'
    ' "flip": true, "clip": 1.0, "fold": 2, "jitter": true, "max_shift": 0.12,'
    ' "max_log_scale": 0.4, "mirror": true, "downscale": 4, "epochs": 30, "batch_size": 32}',
}


@pytest.mark.parametrize("name", RECIPES)
def test_run_ids_hash_the_original_text(name: str) -> None:
    assert json.dumps(RECIPES[name].hash_fields()) == HASHED[name]


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_shift", 0.3), ("max_log_scale", 0.3), ("muon_ratio", 9.0), ("edge_weight", 3.0)],
)
def test_newer_fields_name_another_run_where_they_differ(field: str, value: object) -> None:
    """Otherwise a run after an upgrade would go on from states of the old values."""
    plain = Recipe()
    assert field not in plain.hash_fields()
    changed = dataclasses.replace(plain, **{field: value})
    assert changed.hash_fields() == {**plain.hash_fields(), field: value}


@pytest.mark.parametrize("field", dataclasses.fields(Recipe), ids=lambda field: field.name)
def test_every_field_changes_the_hash(field: dataclasses.Field) -> None:
    changed = dataclasses.replace(Recipe(), **{field.name: "another value"})
    assert changed.hash_fields() != Recipe().hash_fields()


def test_recipes_set_defaults_by_field_name() -> None:
    assert set(RECIPE_DEFAULTED) <= {field.name for field in dataclasses.fields(Recipe)}
