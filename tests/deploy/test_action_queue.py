"""The queue's promises: at most once, in order, newest plan only, nothing undecided."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.action_queue import ActionQueue
from policy.interface import Plan


def plan(start: int, *, horizon: int = 5, levels=None, tag: float | None = None) -> Plan:
    """A plan whose action for step s is (s, tag); the tag defaults to its start."""
    steps = np.arange(start, start + horizon)
    tags = np.full(horizon, start if tag is None else tag)
    return Plan(
        start_step=start,
        actions=np.stack([steps, tags], axis=1).astype(np.float32),
        levels=np.zeros(horizon, np.float32) if levels is None else np.float32(levels),
        network_calls=1,
    )


events = st.lists(
    st.one_of(
        st.tuples(st.just("plan"), st.integers(0, 30), st.integers(1, 8)),
        st.tuples(st.just("take"), st.integers(0, 3), st.just(0)),
    ),
    max_size=60,
)


@given(events, st.integers(0, 4), st.floats(0, 1))
def test_an_action_is_given_at_most_once_for_its_own_step_from_the_newest_plan(
    script, num_decided, max_level
):
    queue = ActionQueue(max_level=max_level)
    step, newest, taken = 0, -1, []
    for kind, number, horizon in script:
        if kind == "plan":
            levels = np.clip((np.arange(horizon) - num_decided + 1) / 4, 0, 1)
            accepted = queue.accept(plan(number, horizon=horizon, levels=levels))
            assert accepted == (number > newest)
            newest = max(newest, number)
            continue
        step += number
        slot = queue.take(step)
        if slot is not None:
            taken.append(slot.step)
            assert slot.step == step == slot.action[0]  # the action meant for this very step
            assert slot.start_step == newest == slot.action[1]
            assert slot.level <= max_level
        step += 1
        with pytest.raises(ValueError, match="is over"):
            queue.take(step - 1)
    assert taken == sorted(set(taken))


def test_a_newer_plan_replaces_what_is_still_to_come_and_only_that():
    queue = ActionQueue()
    queue.accept(plan(4))
    given = [queue.take(4), queue.take(5)]
    queue.accept(plan(5))
    given += [queue.take(step) for step in range(6, 11)]
    assert [None if s is None else tuple(s.action) for s in given] == [
        (4, 4), (5, 4), (6, 5), (7, 5), (8, 5), (9, 5), None,
    ]  # fmt: skip


def test_a_late_older_plan_is_not_taken_in():
    queue = ActionQueue()
    assert queue.accept(plan(5))
    assert not queue.accept(plan(4))
    assert not queue.accept(plan(5, tag=99))
    assert queue.num_outdated == 2
    assert queue.take(5).action[1] == 5


def test_an_unsure_newer_plan_is_not_overruled_by_a_confident_older_one():
    queue = ActionQueue()
    queue.accept(plan(0))
    queue.accept(plan(1, levels=[0, 0.5, 1, 1, 1]))
    assert queue.take(1) is not None
    assert queue.take(2) is None


def test_only_slots_up_to_the_level_are_executable():
    for max_level, expected in ((0.0, 2), (0.25, 3), (1.0, 5)):
        queue = ActionQueue(max_level=max_level)
        queue.accept(plan(0, levels=[0, 0, 0.25, 0.5, 1]))
        assert queue.num_executable(0) == expected
        assert queue.num_executable(1) == expected - 1


def test_a_plan_ends_at_its_validity():
    queue = ActionQueue()
    queue.accept(plan(0), valid_until=2)
    assert [queue.take(step) is not None for step in range(4)] == [True, True, False, False]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("slot", range(5))
def test_one_bad_number_refuses_the_whole_plan_and_the_old_one_stays(bad, slot):
    queue = ActionQueue()
    queue.accept(plan(0))
    broken = plan(1)
    broken.actions[slot, 1] = bad
    assert not queue.accept(broken)
    assert queue.num_refused == 1
    assert queue.take(1).start_step == 0


def test_misshapen_plans_and_levels_are_refused():
    queue = ActionQueue()
    assert not queue.accept(plan(0, levels=[0, 0]))
    assert queue.num_refused == 1
    with pytest.raises(ValueError, match="max_level 2"):
        ActionQueue(max_level=2)


def test_clear_begins_a_new_episode():
    queue = ActionQueue()
    queue.accept(plan(7))
    queue.take(8)
    queue.clear()
    assert queue.take(0) is None
    assert queue.accept(plan(1))
