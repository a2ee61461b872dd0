"""What training goes on from: written whole, the newest good one taken, the others refused."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.damage import DAMAGES, SAVES, evil_was_here, plant
from support.models import write_model

from carvana_ray import storage
from carvana_ray.checkpoints import model as checkpoint
from carvana_ray.checkpoints import train_state as states
from carvana_ray.config.recipes import RECIPES
from carvana_ray.errors import InputError
from carvana_ray.training.state import ModelWithLoss, TrainState, init_state
from carvana_ray.unet.network import UNet, UNetConfig

DESIGN = UNetConfig(base=4, norm="batch")


def fresh(seed: int = 0) -> TrainState:
    torch.manual_seed(seed)
    model = ModelWithLoss(DESIGN.build())
    return init_state(model, model, RECIPES["default"], 0.02, 10)


def write(run: Path, state: dict[str, Any]) -> None:
    states.save(str(run), state, DESIGN)


def newest(run: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Return what `load_latest` does, whose epoch must be that of `latest_epoch`."""
    state, skipped = states.load_latest(str(run), DESIGN)
    assert states.latest_epoch(str(run), DESIGN) == (state["epoch"] if state else None)
    return state, skipped


def same(one: Any, other: Any) -> bool:
    """Return whether two states hold the same: tensors to the bit, plain values equal."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of a run of five epochs, all kept, and `TrainState.state_dict` after each."""
    torch.set_num_threads(1)
    run, seen = tmp_path_factory.mktemp("states") / "run", []
    state = fresh()
    for epoch in range(1, 6):
        state.model(torch.randn(2, 1, 16, 16)).square().mean().backward()
        state.optimizer.step()
        state.schedule.step()
        state.epoch, state.history = epoch, [*state.history, {"epoch": epoch, "loss": 1 / epoch}]
        write(run, state.state_dict())
        seen.append(checkpoint.from_bytes(checkpoint.to_bytes(state.state_dict())))
    return run, seen


@pytest.fixture
def run(five: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> Path:
    """A copy of the run's folder that a test may damage."""
    return Path(shutil.copytree(five[0], tmp_path / "run"))


def folder(run: Path, epoch: int) -> Path:
    return Path(states.epoch_dir(str(run), epoch))


def test_a_state_comes_back_as_it_was(five: tuple[Path, list[dict[str, Any]]]) -> None:
    run, seen = five
    assert states.list_epochs(str(run)) == [1, 2, 3, 4, 5]
    for epoch, state in enumerate(seen, 1):
        found = states.load(str(run), epoch, DESIGN)
        assert same(found, state)
        assert found["epoch"] == len(found["history"]) == epoch
    assert not same(seen[3], seen[4])


def test_the_newest_epoch_is_the_one_to_go_on_from(
    five: tuple[Path, list[dict[str, Any]]],
) -> None:
    found, skipped = newest(five[0])
    assert same(found, five[1][-1])
    assert skipped == []


def test_a_run_that_was_not_begun_has_no_state_and_no_fault(tmp_path: Path) -> None:
    assert newest(tmp_path / "none") == (None, [])
    (tmp_path / "run" / "epoch-x").mkdir(parents=True)
    (tmp_path / "run" / "other").mkdir()
    (tmp_path / "run" / "epoch-0007").write_text("a file, no folder")
    assert newest(tmp_path / "run") == (None, [])


def test_epochs_are_told_apart_by_number_not_by_text(tmp_path: Path) -> None:
    for epoch in (9999, 10000, 2):
        folder(tmp_path, epoch).mkdir()
    assert states.list_epochs(str(tmp_path)) == [2, 9999, 10000]


def test_the_random_state_and_all_else_a_state_is_made_of_are_in_it(
    five: tuple[Path, list[dict[str, Any]]],
) -> None:
    state = five[1][-1]
    assert set(state) == states.KEYS
    assert state["random"].dtype == torch.uint8
    again = fresh(seed=1)
    again.load_state_dict(state)
    assert same(again.state_dict(), state)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_planted_state_is_refused_in_one_line_that_names_it(run: Path, name: str) -> None:
    reason = plant(folder(run, 5), SAVES["state"], name)
    with pytest.raises(InputError, match=reason) as error:
        states.load(str(run), 5, DESIGN)
    assert str(folder(run, 5)) in str(error.value)
    assert "\n" not in str(error.value)
    assert not evil_was_here(folder(run, 5))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_newest_state_is_passed_over_with_its_reason(
    run: Path, five: tuple[Path, list[dict[str, Any]]], name: str
) -> None:
    reason = plant(folder(run, 5), SAVES["state"], name)
    found, skipped = newest(run)
    assert same(found, five[1][3])
    with pytest.raises(InputError, match=reason) as error:
        states.load(str(run), 5, DESIGN)
    assert skipped == [str(error.value)]
    assert not evil_was_here(folder(run, 5))


def test_where_all_are_damaged_all_reasons_are_told_newest_first(run: Path) -> None:
    for epoch, name in zip(range(1, 6), DAMAGES, strict=False):
        plant(folder(run, epoch), SAVES["state"], name)
    found, skipped = newest(run)
    assert found is None
    assert len(skipped) == 5
    for epoch, reason in zip((5, 4, 3, 2, 1), skipped, strict=True):
        assert str(folder(run, epoch)) in reason


def not_finite(state: dict[str, Any]) -> None:
    moment = state["optimizer"]["state"][0]["exp_avg_sq"]
    moment.view(-1)[0] = float("inf")


def of_another_epoch(state: dict[str, Any]) -> None:
    state["epoch"] = 4


def with_a_short_history(state: dict[str, Any]) -> None:
    state["history"].pop()


def without_random(state: dict[str, Any]) -> None:
    del state["random"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (not_finite, "optimizer has values that are not finite"),
        (of_another_epoch, "does not hold 5 epochs"),
        (with_a_short_history, "does not hold 5 epochs"),
        (without_random, "does not hold 5 epochs"),
    ],
)
def test_a_state_that_contradicts_itself_is_refused(
    run: Path,
    five: tuple[Path, list[dict[str, Any]]],
    change: Callable[[dict[str, Any]], None],
    reason: str,
) -> None:
    at = folder(run, 5)
    state = checkpoint.from_bytes((at / "state.pt").read_bytes())
    change(state)
    SAVES["state"].put(at, checkpoint.to_bytes(state))
    with pytest.raises(InputError, match=reason):
        states.load(str(run), 5, DESIGN)
    assert same(newest(run)[0], five[1][3])


def test_a_state_of_another_network_is_refused(run: Path) -> None:
    for other in ({"base": 8}, {"norm": "none"}, {"fold": 2}):
        design = dataclasses.replace(DESIGN, **other)
        with pytest.raises(InputError, match="not a usable checkpoint"):
            states.load(str(run), 5, design)
        found, skipped = states.load_latest(str(run), design)
        assert found is None
        assert len(skipped) == 5


def test_what_could_not_be_read_again_is_not_written(
    run: Path, five: tuple[Path, list[dict[str, Any]]]
) -> None:
    state = checkpoint.from_bytes(checkpoint.to_bytes(five[1][-1]))
    state["epoch"], state["history"] = 6, [*state["history"], {}]
    state["model"]["head.bias"].fill_(float("nan"))
    with pytest.raises(ValueError, match=r"head\.bias has values that are not finite"):
        write(run, state)
    assert same(newest(run)[0], five[1][-1])


@pytest.mark.parametrize("lost", ["state.pt", "manifest.json"])
def test_a_write_that_is_cut_off_leaves_the_epoch_before(
    run: Path,
    five: tuple[Path, list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    """The fifth epoch is written anew, over one that is there, and the power fails in between."""
    publish = storage.write_atomic

    def fails(uri: str, data: bytes, *, replace: bool = False) -> bool:
        if uri.endswith(lost):
            raise OSError("no power")
        return publish(uri, data, replace=replace)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_atomic", fails)
        with pytest.raises(OSError, match="no power"):
            write(run, five[1][-1])
    found, skipped = newest(run)
    assert same(found, five[1][3])
    assert len(skipped) == 1
    assert str(folder(run, 5)) in skipped[0]


def test_a_damaged_epoch_is_mended_by_writing_it_again(
    run: Path, five: tuple[Path, list[dict[str, Any]]]
) -> None:
    plant(folder(run, 5), SAVES["state"], "flipped bit")
    write(run, five[1][-1])
    found, skipped = newest(run)
    assert same(found, five[1][-1])
    assert skipped == []


@pytest.mark.parametrize("last", [1, 3, 4, 5])
def test_pruning_keeps_the_three_newest_and_the_best(run: Path, last: int) -> None:
    for epoch in range(last + 1, 6):
        shutil.rmtree(folder(run, epoch))
    for best in range(1, last + 1):
        copy = Path(shutil.copytree(run, run.parent / f"best-{best}"))
        states.prune(str(copy), best)
        kept = {best} | set(range(max(1, last - 2), last + 1))
        assert states.list_epochs(str(copy)) == sorted(kept)
        assert newest(copy)[1] == []
        for epoch in kept:
            states.load(str(copy), epoch, DESIGN)
        states.prune(str(copy), best)
        assert states.list_epochs(str(copy)) == sorted(kept)


def test_an_epoch_that_is_pruned_does_not_count_from_the_first_moment(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pruning that is cut off leaves a folder, but none that would be read."""
    monkeypatch.setattr(storage, "remove_dir", lambda uri: None)
    states.prune(str(run), best=5)
    for epoch in (1, 2):
        assert not (folder(run, epoch) / "manifest.json").exists()
        with pytest.raises(InputError, match=r"no manifest\.json in this folder"):
            states.load(str(run), epoch, DESIGN)


TRY_ALL = """
import json, sys
from carvana_ray.checkpoints import model, train_state
from carvana_ray.errors import InputError
from carvana_ray.unet.network import UNet, UNetConfig
for kind, place in json.load(sys.stdin):
    try:
        if kind == "state":
            train_state.load(place, 5, UNetConfig(base=4, norm="batch"))
        else:
            model.load_model(place)
        said = "taken"
    except InputError as error:
        said = f"refused {error}"
    except Exception as error:
        said = f"raised {error!r}"
    print(json.dumps(said))
"""


def test_nothing_planted_runs_even_where_the_environment_asks_for_it(
    run: Path, tmp_path: Path
) -> None:
    """TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD turns torch's guard off where a call leaves it open."""
    asked, reasons = [], []
    for kind, saved in SAVES.items():
        for name in DAMAGES:
            place = tmp_path / kind / name.replace(" ", "-")
            at = folder(place, 5) if kind == "state" else place
            if kind == "state":
                shutil.copytree(folder(run, 5), at)
            else:
                write_model(at, UNet(base=2))
            reasons.append((at, plant(at, saved, name)))
            asked.append((kind, str(place)))
    done = subprocess.run(
        [sys.executable, "-c", TRY_ALL],
        input=json.dumps(asked),
        env={**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(asked) == 2 * len(DAMAGES)
    for (at, _), line in zip(reasons, said, strict=True):
        assert line.startswith("refused "), line
        assert str(at) in line
        assert "\n" not in line
        assert not evil_was_here(at)


@pytest.mark.parametrize("kind", SAVES)
def test_the_evil_file_does_harm_where_it_is_loaded_without_care(
    run: Path, tmp_path: Path, kind: str
) -> None:
    """The tests above can fail."""
    saved = SAVES[kind]
    at = folder(run, 5) if kind == "state" else tmp_path / "model"
    if kind == "model":
        write_model(at, UNet(base=2))
    plant(at, saved, "evil pickle")
    assert not evil_was_here(at)
    torch.load(at / saved.file, weights_only=False)
    assert evil_was_here(at)
