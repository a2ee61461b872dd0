"""The copy of a state that is written while training goes on."""

import copy

from support.training import PLAN, assert_equal, fresh, lone_worker, stream

from carvana_ray.stages.train.checkpoint_writer import _fetch, _snapshot
from carvana_ray.training.loop import train_step


def test_a_snapshot_is_the_state_and_later_steps_leave_it_alone() -> None:
    state, batches = fresh(), stream(PLAN)
    train_step(state, next(batches), lone_worker())
    expected = copy.deepcopy(state.state_dict())
    snapshot, side = _snapshot(state)
    train_step(state, next(batches), lone_worker())
    assert_equal(_fetch(snapshot, side), expected)
