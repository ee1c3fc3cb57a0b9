"""Whole chunks over time, and the plan as a value."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from policy.planning import ChunkPlanning, shift
from tests.policy.planned_world import TRUTH, World, assert_decided_slots_are_true, restless


def chunk(**arguments: int) -> ChunkPlanning:
    return ChunkPlanning(**({"num_calls": 5, "execution_horizon": 6} | arguments))


def test_chunk_calls_when_due_and_keeps_its_word_in_between() -> None:
    world = World(chunk(), horizon=16)
    for step in range(13):
        plan = world.ask(step)
        num_fresh = step % 6  # shifted in as noise
        decided = plan.levels == 0
        assert decided.tolist() == [True] * (16 - num_fresh) + [False] * num_fresh
        torch.testing.assert_close(plan.x[0, : 16 - num_fresh], TRUTH[step : step + 16 - num_fresh])
    assert world.calls == [5, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 5]


@pytest.mark.parametrize("delay", [1, 4, 10])
def test_chunk_keeps_the_prefix_that_is_under_way(delay: int) -> None:
    world = World(chunk(), horizon=16, denoise=restless)
    for step in range(13):
        world.ask(step, delay=delay)
    for due in (6, 12):
        old, new = world.plans[due - 1], world.plans[due]
        assert torch.equal(new.x[:, :delay], old.x[:, 1 : delay + 1])
        assert (new.x[:, delay] - old.x[:, delay + 1]).abs().max() > 1e-3
        assert (new.levels == 0).all()


def test_chunk_after_a_long_silence_has_no_prefix_left() -> None:
    world = World(chunk(), horizon=16)
    world.ask(0)
    assert_decided_slots_are_true(world.ask(40, delay=4), delay=4)
    assert world.calls == [5, 5]


def test_a_delay_that_leaves_no_slot_is_refused() -> None:
    with pytest.raises(
        ValueError, match="execution_horizon 6 plus delay 11 exceed the horizon of 16 slots"
    ):
        World(chunk(), horizon=16).ask(0, delay=11)


@pytest.mark.parametrize("arguments", [{"num_calls": 0}, {"execution_horizon": 0}])
def test_impossible_chunks_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        chunk(**arguments)


def test_shift() -> None:
    world = World(chunk(), horizon=6)
    plan = replace(world.ask(3), clean_levels=np.linspace(0, 0.5, 6))
    assert shift(plan, 3, world.draw) is plan
    moved = shift(plan, 5, world.draw)
    assert moved.start_step == 5
    assert torch.equal(moved.x[:, :4], plan.x[:, 2:])
    assert moved.levels.tolist() == [0] * 4 + [1, 1]
    assert torch.equal(moved.clean[:, 4:], plan.clean[:, -1:].expand(-1, 2, -1))
    np.testing.assert_array_equal(moved.clean_levels, [*plan.clean_levels[2:], 1, 1])
    assert (shift(plan, 50, world.draw).levels == 1).all()
    with pytest.raises(ValueError, match="from step 3 cannot go back to step 2"):
        shift(plan, 2, world.draw)


@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_colder_noise_is_smaller_noise(temperature: float) -> None:
    def keep(step: int, x: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return x

    warm = World(ChunkPlanning(num_calls=1, execution_horizon=6), horizon=16, denoise=keep)
    cold = World(
        ChunkPlanning(num_calls=1, execution_horizon=6, temperature=temperature),
        horizon=16,
        denoise=keep,
    )
    torch.testing.assert_close(cold.ask(0).x, temperature * warm.ask(0).x)
