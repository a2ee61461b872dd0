"""A training in memory takes all of its recipe."""

import in_memory
import pytest
import torch

from carvana_ray.config.recipes import Recipe


@pytest.mark.parametrize("path", ["eager", "fused"])
def test_the_edge_weight_is_the_recipes(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_memory, "capture", lambda state, *_: setattr(state, "captured", True))
    recipe = Recipe(edge_weight=7.0, batch_size=2)
    way = in_memory.Way(path, base=2)
    example = {"image": torch.zeros(2, 32, 48)}
    state = in_memory.begin(in_memory.plan_of(recipe, 4, 1), recipe, example, way)
    assert state.module.edge_weight == 7
