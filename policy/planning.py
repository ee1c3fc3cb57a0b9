"""How a plan goes on from step to step: whole chunks, or rolling with one call a control step.

    chunk    | n calls |  s steps without a call  | n calls | ...
    rolling  |1|1|1|1|1|1|   every call moves all slots one notch; the newest slot starts as noise

Both are functions of the old plan; the plan itself is a value. B episodes in lock-step share the
levels, H horizon, A action size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from policy.noise_schedule import NoiseSchedule, add_noise
from policy.sampler import Denoise, ddim_step, sample, second_order_step
from policy.scheduling_matrix import Staircase, full_sequence

DrawSlots = Callable[[int], Tensor]  # number of slots -> pure noise (B, slots, A)


@dataclass(frozen=True, kw_only=True)
class PlanState:
    """A plan between two requests.

    Attributes:
        start_step: control step of slot 0.
        x: (B, H, A) the slots at unit scale, at their levels.
        levels: (H,) float64.
        clean: (B, H, A) each slot's last clean estimate.
        clean_levels: (H,) level at which that estimate was made; 1 where there is none.
        next_call_step: control step at which the network is due.
    """

    start_step: int
    x: Tensor
    levels: np.ndarray
    clean: Tensor
    clean_levels: np.ndarray
    next_call_step: int


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What planning may use at one control step.

    Attributes:
        schedule: noise schedule of the levels.
        denoise: one network call: (plan (B, H, A), levels (B, H)) -> bounded clean estimate.
        draw: fresh pure noise for that many slots.
        horizon: H.
    """

    schedule: NoiseSchedule
    denoise: Denoise
    draw: DrawSlots
    horizon: int


class Planning(Protocol):
    """A way to go on with a plan."""

    def advance(
        self, plan: PlanState | None, *, step: int, delay: int, tools: Tools
    ) -> tuple[PlanState, int]:
        """The plan from `step` on and the network calls it took.

        `delay` slots at the front are committed: they stay as the old plan has them.
        """
        ...


def shift(plan: PlanState, step: int, draw: DrawSlots) -> PlanState:
    """The plan seen from `step`: executed slots leave, as many slots of pure noise arrive."""
    by = min(step - plan.start_step, plan.x.shape[1])
    if by < 0:
        raise ValueError(f"a plan from step {plan.start_step} cannot go back to step {step}")
    if by == 0:
        return plan
    ones = np.ones(by)
    last = plan.clean[:, -1:].expand(-1, by, -1)
    return replace(
        plan,
        start_step=step,
        x=torch.cat([plan.x[:, by:], draw(by)], dim=1),
        levels=np.concatenate([plan.levels[by:], ones]),
        clean=torch.cat([plan.clean[:, by:], last], dim=1),
        clean_levels=np.concatenate([plan.clean_levels[by:], ones]),
    )


def whole_plan(
    old: PlanState | None, *, step: int, delay: int, num_calls: int, tools: Tools
) -> PlanState:
    """Denoise all slots together from pure noise, behind the old plan's first `delay` slots."""
    matrix = full_sequence(num_calls, tools.horizon)
    x = tools.draw(tools.horizon)
    if old is not None and delay > 0:
        kept = int(np.argmax(np.append(old.levels[:delay], 1.0) > 0))  # decided slots at the front
        x = torch.cat([old.x[:, :kept], x[:, kept:]], dim=1)
        matrix[:, :kept] = 0.0
    clean = sample(tools.denoise, x, matrix, schedule=tools.schedule)
    zeros = np.zeros(tools.horizon)
    return PlanState(
        start_step=step, x=clean, levels=zeros, clean=clean, clean_levels=zeros, next_call_step=step
    )


def cooled(tools: Tools, temperature: float) -> Tools:
    """`tools` whose fresh noise is scaled by `temperature`: below 1, plans near the likeliest."""
    if temperature == 1.0:
        return tools
    draw = tools.draw
    return replace(tools, draw=lambda slots: temperature * draw(slots))


@dataclass(frozen=True, kw_only=True)
class ChunkPlanning:
    """A whole plan every `execution_horizon` steps, from `num_calls` network calls at once.

    Attributes:
        num_calls: network calls of a plan.
        execution_horizon: control steps until the next plan.
        temperature: of the noise that a plan begins with, see `cooled`.
    """

    num_calls: int = 8
    execution_horizon: int = 8
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if min(self.num_calls, self.execution_horizon) < 1:
            raise ValueError(f"num_calls and execution_horizon must be at least 1, got {self}")

    def advance(
        self, plan: PlanState | None, *, step: int, delay: int, tools: Tools
    ) -> tuple[PlanState, int]:
        """A new chunk if one is due, else the old one shifted."""
        tools = cooled(tools, self.temperature)
        if self.execution_horizon + delay > tools.horizon:
            raise ValueError(
                f"execution_horizon {self.execution_horizon} plus delay {delay} exceed the "
                f"horizon of {tools.horizon} slots"
            )
        if plan is not None:
            plan = shift(plan, step, tools.draw)
            if step < plan.next_call_step:
                return plan, 0
        new = whole_plan(plan, step=step, delay=delay, num_calls=self.num_calls, tools=tools)
        return replace(new, next_call_step=step + self.execution_horizon), self.num_calls


@dataclass(frozen=True, kw_only=True)
class RollingPlanning:
    """One network call every `staircase.per_call` control steps, each moving every slot a notch.

    At the start a whole plan is denoised with `cold_calls` calls; its first `cold_calls` slots are
    then executed without any, so that an episode never takes more than a call a step.

    Attributes:
        staircase: the levels between calls; its `committed` is raised to the measured delay.
        cold_calls: calls of the first plan.
        second_order: use the slots' earlier clean estimates, DPM-Solver++(2M).
        eta: stochasticity of the steps, 0 deterministic.
        temperature: of the noise that a slot begins with, see `cooled`.
    """

    staircase: Staircase = field(default_factory=lambda: Staircase(ramp=8))
    cold_calls: int = 8
    second_order: bool = False
    eta: float = 0.0
    temperature: float = 1.0

    def advance(
        self, plan: PlanState | None, *, step: int, delay: int, tools: Tools
    ) -> tuple[PlanState, int]:
        """The plan one notch cleaner, or shifted only where no call is due.

        A delay that has grown since the last call may ask for a slot that is not decided yet; then
        the network is called at once.
        """
        tools = cooled(tools, self.temperature)
        if delay >= tools.horizon:
            raise ValueError(
                f"delay {delay} leaves nothing to plan of a horizon of {tools.horizon} slots; it "
                f"must be at most {tools.horizon - 1}"
            )
        stairs = replace(self.staircase, committed=max(self.staircase.committed, delay))
        if plan is None or step - plan.start_step >= tools.horizon:
            return self._cold_start(stairs, step=step, tools=tools), self.cold_calls
        plan = shift(plan, step, tools.draw)
        if step < plan.next_call_step and plan.levels[delay] == 0:
            return plan, 0
        targets = np.minimum(plan.levels, stairs.targets(tools.horizon, step=step))
        batch = len(plan.x)
        k, k_next, k_previous = (
            torch.as_tensor(v, dtype=torch.float32).expand(batch, -1)
            for v in (plan.levels, targets, plan.clean_levels)
        )
        clean = tools.denoise(plan.x, k)
        if self.second_order:
            x = second_order_step(
                tools.schedule,
                x_k=plan.x, clean=clean, previous=plan.clean,
                k_previous=k_previous, k=k, k_next=k_next,
            )  # fmt: skip
        else:
            noise = tools.draw(tools.horizon) if self.eta > 0 else None
            x = ddim_step(
                tools.schedule,
                x_k=plan.x, clean=clean, k=k, k_next=k_next, eta=self.eta, noise=noise,
            )  # fmt: skip
        is_decided = torch.as_tensor(plan.levels == 0).view(1, -1, 1)
        return PlanState(
            start_step=step,
            x=x,
            levels=targets,
            clean=torch.where(is_decided, plan.x, clean),
            clean_levels=plan.levels,
            next_call_step=step + stairs.per_call,
        ), 1

    def _cold_start(self, stairs: Staircase, *, step: int, tools: Tools) -> PlanState:
        """A whole plan, noised again to where the staircase stands at the next call."""
        plan = whole_plan(None, step=step, delay=0, num_calls=self.cold_calls, tools=tools)
        held = min(self.cold_calls, tools.horizon)
        levels = np.zeros(tools.horizon)
        levels[held:] = stairs.levels(tools.horizon - held, step=step + held)
        k = torch.as_tensor(levels, dtype=torch.float32).expand(plan.x.shape[:2])
        noise = tools.draw(tools.horizon)
        return replace(
            plan,
            x=add_noise(tools.schedule, plan.clean, noise, k),
            levels=levels,
            clean_levels=np.ones(tools.horizon),
            next_call_step=step + held,
        )
