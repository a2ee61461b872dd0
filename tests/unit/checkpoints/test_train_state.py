"""Training checkpoints: written completely, resumed from the newest good one, damage refused."""

import dataclasses
import errno
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
from support.rights import run_without_rights

from carvana_ray import storage
from carvana_ray.checkpoints import train_state
from carvana_ray.checkpoints.model import from_bytes, to_bytes
from carvana_ray.config.recipes import RECIPES
from carvana_ray.errors import InputError, StorageUnavailableError
from carvana_ray.training.state import ModelWithLoss, TrainState, init_state
from carvana_ray.unet.network import UNet, UNetConfig

CONFIG = UNetConfig(base=4, norm="batch")


def fresh(seed: int = 0) -> TrainState:
    torch.manual_seed(seed)
    model = ModelWithLoss(CONFIG.build())
    return init_state(model, model, RECIPES["default"], 0.02, 10)


def write(run: Path, state: dict[str, Any]) -> None:
    train_state.save(str(run), state, CONFIG)


def newest(run: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Return `load_latest`, after comparing its epoch with `latest_epoch`."""
    state, skipped = train_state.load_latest(str(run), CONFIG)
    assert train_state.latest_epoch(str(run), CONFIG) == (state["epoch"] if state else None)
    return state, skipped


def same(one: Any, other: Any) -> bool:
    """Return whether two states are equal, tensors bit by bit."""
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
    run, seen = tmp_path_factory.mktemp("states") / "run", []
    state = fresh()
    for epoch in range(1, 6):
        state.model(torch.randn(2, 1, 16, 16)).square().mean().backward()
        state.optimizer.step()
        state.schedule.step()
        state.epoch, state.history = epoch, [*state.history, {"epoch": epoch, "loss": 1 / epoch}]
        write(run, state.state_dict())
        seen.append(from_bytes(to_bytes(state.state_dict())))
    return run, seen


@pytest.fixture
def run(five: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> Path:
    """A copy of the run's folder for a test to damage."""
    return Path(shutil.copytree(five[0], tmp_path / "run"))


def folder(run: Path, epoch: int) -> Path:
    return Path(train_state.epoch_dir(str(run), epoch))


def test_a_state_loads_as_it_was_saved(five: tuple[Path, list[dict[str, Any]]]) -> None:
    run, seen = five
    assert train_state.list_epochs(str(run)) == [1, 2, 3, 4, 5]
    for epoch, state in enumerate(seen, 1):
        loaded = train_state.load(str(run), epoch, CONFIG)
        assert same(loaded, state)
        assert loaded["epoch"] == len(loaded["history"]) == epoch
    assert not same(seen[3], seen[4])


def test_training_resumes_from_the_newest_epoch(
    five: tuple[Path, list[dict[str, Any]]],
) -> None:
    state, skipped = newest(five[0])
    assert same(state, five[1][-1])
    assert skipped == []


def test_a_new_run_has_no_checkpoint_and_no_error(tmp_path: Path) -> None:
    assert newest(tmp_path / "none") == (None, [])
    (tmp_path / "run" / "epoch-x").mkdir(parents=True)
    (tmp_path / "run" / "other").mkdir()
    (tmp_path / "run" / "epoch-0007").write_text("a file, no folder")
    assert newest(tmp_path / "run") == (None, [])


def test_epochs_are_sorted_by_number_not_by_text(tmp_path: Path) -> None:
    for epoch in (9999, 10000, 2):
        folder(tmp_path, epoch).mkdir()
    assert train_state.list_epochs(str(tmp_path)) == [2, 9999, 10000]


def test_a_state_is_complete_with_the_random_state(
    five: tuple[Path, list[dict[str, Any]]],
) -> None:
    state = five[1][-1]
    assert set(state) == train_state.KEYS
    assert state["random"].dtype == torch.uint8
    again = fresh(seed=1)
    again.load_state_dict(state)
    assert same(again.state_dict(), state)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_refused_in_one_line_that_names_it(run: Path, name: str) -> None:
    reason = plant(folder(run, 5), SAVES["state"], name)
    with pytest.raises(InputError, match=reason) as error:
        train_state.load(str(run), 5, CONFIG)
    assert str(folder(run, 5)) in str(error.value)
    assert "\n" not in str(error.value)
    assert not evil_was_here(folder(run, 5))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_newest_checkpoint_is_skipped_with_its_reason(
    run: Path, five: tuple[Path, list[dict[str, Any]]], name: str
) -> None:
    reason = plant(folder(run, 5), SAVES["state"], name)
    state, skipped = newest(run)
    assert same(state, five[1][3])
    with pytest.raises(InputError, match=reason) as error:
        train_state.load(str(run), 5, CONFIG)
    assert skipped == [str(error.value)]
    assert not evil_was_here(folder(run, 5))


def test_if_all_are_damaged_all_reasons_are_returned_newest_first(run: Path) -> None:
    for epoch, name in zip(range(1, 6), DAMAGES, strict=False):
        plant(folder(run, epoch), SAVES["state"], name)
    state, skipped = newest(run)
    assert state is None
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
    state = from_bytes((at / "state.pt").read_bytes())
    change(state)
    SAVES["state"].put(at, to_bytes(state))
    with pytest.raises(InputError, match=reason):
        train_state.load(str(run), 5, CONFIG)
    assert same(newest(run)[0], five[1][3])


def test_a_checkpoint_of_another_network_is_refused(run: Path) -> None:
    for other in ({"base": 8}, {"norm": "none"}, {"fold": 2}):
        config = dataclasses.replace(CONFIG, **other)
        with pytest.raises(InputError, match="not a usable checkpoint"):
            train_state.load(str(run), 5, config)
        state, skipped = train_state.load_latest(str(run), config)
        assert state is None
        assert len(skipped) == 5


def test_a_state_that_could_not_be_loaded_is_not_written(
    run: Path, five: tuple[Path, list[dict[str, Any]]]
) -> None:
    state = from_bytes(to_bytes(five[1][-1]))
    state["epoch"], state["history"] = 6, [*state["history"], {}]
    state["model"]["head.bias"].fill_(float("nan"))
    with pytest.raises(ValueError, match=r"head\.bias has values that are not finite"):
        write(run, state)
    assert same(newest(run)[0], five[1][-1])


@pytest.mark.parametrize("lost", ["state.pt", "manifest.json"])
def test_an_interrupted_write_leaves_the_epoch_before(
    run: Path,
    five: tuple[Path, list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    """The fifth epoch is written again over itself, and the power fails."""
    publish = storage.write_atomic

    def fails(uri: str, data: bytes, *, replace: bool = False) -> bool:
        if uri.endswith(lost):
            raise OSError("no power")
        return publish(uri, data, replace=replace)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_atomic", fails)
        with pytest.raises(OSError, match="no power"):
            write(run, five[1][-1])
    state, skipped = newest(run)
    assert same(state, five[1][3])
    assert len(skipped) == 1
    assert str(folder(run, 5)) in skipped[0]


def test_writing_a_damaged_epoch_again_repairs_it(
    run: Path, five: tuple[Path, list[dict[str, Any]]]
) -> None:
    plant(folder(run, 5), SAVES["state"], "flipped bit")
    write(run, five[1][-1])
    state, skipped = newest(run)
    assert same(state, five[1][-1])
    assert skipped == []


@pytest.mark.parametrize("last", [1, 3, 4, 5])
def test_pruning_keeps_the_three_newest_and_the_best(run: Path, last: int) -> None:
    for epoch in range(last + 1, 6):
        shutil.rmtree(folder(run, epoch))
    for best in range(1, last + 1):
        copy = Path(shutil.copytree(run, run.parent / f"best-{best}"))
        train_state.prune(str(copy), best)
        kept = {best} | set(range(max(1, last - 2), last + 1))
        assert train_state.list_epochs(str(copy)) == sorted(kept)
        assert newest(copy)[1] == []
        for epoch in kept:
            train_state.load(str(copy), epoch, CONFIG)
        train_state.prune(str(copy), best)
        assert train_state.list_epochs(str(copy)) == sorted(kept)


def test_pruning_removes_the_manifest_first(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted pruning leaves a folder that is skipped."""
    monkeypatch.setattr(storage, "remove_dir", lambda uri: None)
    train_state.prune(str(run), best=5)
    for epoch in (1, 2):
        assert not (folder(run, epoch) / "manifest.json").exists()
        with pytest.raises(InputError, match=r"manifest\.json: no such file"):
            train_state.load(str(run), epoch, CONFIG)


def test_a_checkpoint_that_cannot_be_removed_stays_with_a_warning(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that another process has open cannot be removed on NFS."""

    def refuse(uri: str) -> None:
        raise StorageUnavailableError(errno.EBUSY, "Device or resource busy", uri)

    monkeypatch.setattr(storage, "remove_dir", refuse)
    train_state.prune(str(run), best=5)
    assert caplog.messages == [
        f"an old checkpoint stays: {folder(run, epoch)}: Device or resource busy"
        for epoch in (1, 2)
    ]
    assert newest(run)[0]


LIST_EPOCHS = """
import sys
from carvana_ray.checkpoints import train_state
try:
    print(train_state.list_epochs(sys.argv[1]))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_run_without_rights_does_not_look_like_one_without_checkpoints(run: Path) -> None:
    run.parent.chmod(0o600)
    try:
        answer = run_without_rights(LIST_EPOCHS, str(run))
    finally:
        run.parent.chmod(0o700)
    assert answer == f"StorageAccessError {run}: Permission denied\n"


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
        outcome = "loaded"
    except InputError as error:
        outcome = f"refused {error}"
    except Exception as error:
        outcome = f"raised {error!r}"
    print(json.dumps(outcome))
"""


def test_no_planted_code_runs_even_if_the_environment_allows_it(run: Path, tmp_path: Path) -> None:
    """TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD disables torch's guard for calls without `weights_only`."""
    planted, reasons = [], []
    for kind, saved in SAVES.items():
        for name in DAMAGES:
            place = tmp_path / kind / name.replace(" ", "-")
            at = folder(place, 5) if kind == "state" else place
            if kind == "state":
                shutil.copytree(folder(run, 5), at)
            else:
                write_model(at, UNet(base=2))
            reasons.append((at, plant(at, saved, name)))
            planted.append((kind, str(place)))
    done = subprocess.run(
        [sys.executable, "-c", TRY_ALL],
        input=json.dumps(planted),
        env={**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) == len(planted) == 2 * len(DAMAGES)
    for (at, _), line in zip(reasons, outcomes, strict=True):
        assert line.startswith("refused "), line
        assert str(at) in line
        assert "\n" not in line
        assert not evil_was_here(at)


@pytest.mark.parametrize("kind", SAVES)
def test_the_planted_code_runs_if_it_is_loaded_without_the_guard(
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
