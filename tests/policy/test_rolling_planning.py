"""Rolling plans over time: exact with an exact denoiser, and never more than a call a step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from policy.noise_schedule import LinearPath
from policy.planning import RollingPlanning, Tools, shift
from policy.scheduling_matrix import Staircase
from tests.policy.planned_world import TRUTH, World, assert_decided_slots_are_true, restless


# (H, c, e, o, R) of published rolling buffers and between them.
@pytest.mark.parametrize(
    ("horizon", "committed", "per_call", "offset", "ramp"),
    [
        (16, 0, 1, 1, 16), (8, 0, 1, 1, 8), (16, 1, 1, 0, 14), (16, 4, 4, 0, 8), (16, 3, 3, 0, 10),
        (16, 5, 5, 0, 6), (16, 8, 8, 0, 1), (50, 7, 7, 0, 36), (16, 4, 4, 1, 8), (16, 0, 2, 1, 15),
    ],
)  # fmt: skip
def test_rolling_emits_the_oracles_actions(
    horizon: int, committed: int, per_call: int, offset: int, ramp: int
) -> None:
    stairs = Staircase(ramp=ramp, committed=committed, per_call=per_call, offset=offset)
    world = World(RollingPlanning(staircase=stairs, cold_calls=4), horizon=horizon)
    for step in range(60):
        assert_decided_slots_are_true(world.ask(step, delay=committed), delay=committed)
    assert world.calls[:5] == [4, 0, 0, 0, 1]
    assert sum(world.calls[4:]) == len(range(4, 60, per_call))


@settings(max_examples=40)
@given(
    ramp=st.sampled_from([1, 4, 8, 16]),
    block=st.sampled_from([1, 2, 4, 8]),
    offset=st.integers(0, 1),
    per_call=st.integers(1, 3),
    delay=st.integers(0, 8),
    cold_calls=st.integers(1, 8),
    last_level=st.none() | st.floats(0.2, 1),
    second_order=st.booleans(),
    eta=st.sampled_from([0.0, 0.5]),
)
def test_every_shape_of_rolling_is_exact_and_asks_no_more_than_one_call_a_step(
    ramp, block, offset, per_call, delay, cold_calls, last_level, second_order, eta
) -> None:
    stairs = Staircase(
        ramp=ramp, block=block, offset=offset, per_call=per_call, last_level=last_level
    )
    planning = RollingPlanning(
        staircase=stairs, cold_calls=cold_calls, second_order=second_order, eta=eta
    )
    world = World(planning, horizon=16)
    for step in range(24):
        assert_decided_slots_are_true(world.ask(step, delay=delay), delay=delay)
    spent = np.cumsum(world.calls)
    assert (spent <= np.maximum(np.arange(1, 25), cold_calls)).all()


@settings(max_examples=25)
@given(
    delays=st.lists(st.integers(1, 4), min_size=20, max_size=20),
    cold_calls=st.integers(1, 8),
    per_call=st.integers(1, 3),
)
def test_a_delay_that_varies_from_call_to_call(
    delays: list[int], cold_calls: int, per_call: int
) -> None:
    stairs = Staircase(ramp=10, offset=0, per_call=per_call)
    world = World(RollingPlanning(staircase=stairs, cold_calls=cold_calls), horizon=16)
    for step, delay in enumerate(delays):
        assert_decided_slots_are_true(world.ask(step, delay=delay), delay=delay)
    for old, new in zip(world.plans, world.plans[1:], strict=False):
        assert (new.levels[:-1] <= old.levels[1:]).all()  # also where the delay has fallen


def test_a_delay_of_the_whole_horizon_is_refused() -> None:
    world = World(RollingPlanning(staircase=Staircase(ramp=4), cold_calls=2), horizon=8)
    with pytest.raises(ValueError, match="delay 8 leaves nothing .* at most 7"):
        world.ask(0, delay=8)


@pytest.mark.parametrize(
    "planning",
    [
        RollingPlanning(staircase=Staircase(ramp=8), cold_calls=4),
        RollingPlanning(staircase=Staircase(ramp=8, block=4), cold_calls=8, second_order=True),
        RollingPlanning(staircase=Staircase(ramp=4, offset=0), cold_calls=8, eta=1.0),
    ],
)
def test_what_is_decided_never_changes(planning: RollingPlanning) -> None:
    world = World(planning, horizon=16, denoise=restless)
    for step in range(40):
        world.ask(step, delay=3)
    for old, new in zip(world.plans, world.plans[1:], strict=False):
        decided = torch.as_tensor(old.levels[1:] == 0)
        assert decided[:3].all()
        assert torch.equal(new.x[:, :-1][:, decided], old.x[:, 1:][:, decided])
        assert (new.levels[:-1] <= old.levels[1:]).all()


def test_rolling_stands_on_the_staircase_between_calls() -> None:
    stairs = Staircase(ramp=8, block=4)
    world = World(RollingPlanning(staircase=stairs, cold_calls=4), horizon=16)
    for step in range(30):
        plan = world.ask(step)
        if step >= 16:
            np.testing.assert_array_equal(plan.levels, stairs.targets(16, step=step))


def test_a_cold_start_stands_where_its_next_call_finds_the_staircase() -> None:
    stairs = Staircase(ramp=8, block=4)
    world = World(RollingPlanning(staircase=stairs, cold_calls=3), horizon=16)
    levels = world.ask(5).levels
    np.testing.assert_array_equal(levels, [0] * 3 + stairs.levels(13, step=8).tolist())
    assert world.ask(8).levels.tolist() == stairs.targets(16, step=8).tolist()


def test_rolling_starts_again_when_its_plan_has_run_out() -> None:
    world = World(RollingPlanning(cold_calls=4), horizon=8)
    for step in (0, 3, 4, 12, 13):
        assert_decided_slots_are_true(world.ask(step), delay=0)
    assert world.calls == [4, 0, 1, 4, 0]


def test_estimates_are_kept_with_the_level_they_were_made_at() -> None:
    world = World(RollingPlanning(staircase=Staircase(ramp=8), cold_calls=2), horizon=16)
    for step in range(2):
        world.ask(step)
    assert (world.plans[-1].clean_levels == np.ones(16)).all()
    before = shift(world.plans[-1], 2, world.draw)
    plan = world.ask(2)
    np.testing.assert_array_equal(plan.clean_levels, before.levels)
    torch.testing.assert_close(plan.clean[0], TRUTH[2:18])


def emitted_variance(*, second_order: bool) -> float:
    """Variance of the actions that rolling emits for AR(1) data of variance 1, rho 0.95.

    The denoiser is exact: the mean of the slots given their noisy values and the last action.
    """
    horizon, batch, generator = 8, 6000, torch.Generator().manual_seed(0)
    i = torch.arange(horizon + 1, dtype=torch.float64)
    covariance = 0.95 ** (i[:, None] - i[None]).abs()
    last = torch.randn(batch, 1, generator=generator, dtype=torch.float64)

    def denoise(x: Tensor, k: Tensor) -> Tensor:
        level = torch.cat([torch.zeros(1), k[0]]).double()
        scaled = (1 - level)[:, None] * covariance
        noisy = scaled * (1 - level) + torch.diag(level**2 + 1e-12)
        joint = torch.cat([last, x[..., 0]], dim=1)
        return (joint @ torch.linalg.solve(noisy, scaled))[:, 1:, None]

    planning = RollingPlanning(
        staircase=Staircase(ramp=horizon), cold_calls=1, second_order=second_order
    )
    tools = Tools(
        schedule=LinearPath(),
        denoise=denoise,
        draw=lambda n: torch.randn(batch, n, 1, generator=generator, dtype=torch.float64),
        horizon=horizon,
    )
    plan, emitted = None, []
    for step in range(90):
        plan, _ = planning.advance(plan, step=step, delay=0, tools=tools)
        last = plan.x[:, 0]
        emitted.append(last.var().item())
    return float(np.mean(emitted[50:]))


def test_second_order_keeps_the_variance_that_first_order_loses() -> None:
    assert emitted_variance(second_order=False) == pytest.approx(0.73, abs=0.03)
    assert emitted_variance(second_order=True) == pytest.approx(0.94, abs=0.03)
