"""A world for planning: asks at every control step, with denoisers whose answer is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from policy.noise_schedule import LinearPath
from policy.planning import Planning, PlanState, Tools

ACTION_SIZE = 2
TRUTH = torch.randn(400, ACTION_SIZE, generator=torch.Generator().manual_seed(7))


class World:
    """Asks a planning for a plan at every control step; keeps plans and calls.

    Args:
        denoise: (step, x, k) -> clean estimate; None: the truth of each absolute step.
    """

    def __init__(
        self,
        planning: Planning,
        *,
        horizon: int,
        denoise: Callable[[int, Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.planning, self.horizon, self.denoise = planning, horizon, denoise or self.truth
        self.generator = torch.Generator().manual_seed(0)
        self.plans: list[PlanState] = []
        self.calls: list[int] = []

    def truth(self, step: int, x: Tensor, k: Tensor) -> Tensor:
        return TRUTH[step : step + self.horizon].expand_as(x)

    def draw(self, slots: int) -> Tensor:
        return torch.randn(1, slots, ACTION_SIZE, generator=self.generator)

    def ask(self, step: int, *, delay: int = 0) -> PlanState:
        tools = Tools(
            schedule=LinearPath(),
            denoise=lambda x, k: self.denoise(step, x, k),
            draw=self.draw,
            horizon=self.horizon,
        )
        last = self.plans[-1] if self.plans else None
        plan, calls = self.planning.advance(last, step=step, delay=delay, tools=tools)
        self.plans.append(plan)
        self.calls.append(calls)
        return plan


def restless(step: int, x: Tensor, k: Tensor) -> Tensor:
    """A denoiser that changes its mind at every step: what must stay, stays by itself."""
    return x.roll(1, dims=-1) + torch.sin(torch.tensor(float(step)))


def assert_decided_slots_are_true(plan: PlanState, *, delay: int) -> None:
    """The slots up to the first usable one are decided, and every decided slot is right."""
    assert (plan.levels[: delay + 1] == 0).all()
    assert (np.diff(plan.levels) >= 0).all()
    decided = torch.as_tensor(plan.levels == 0)
    truth = TRUTH[plan.start_step : plan.start_step + len(plan.levels)]
    torch.testing.assert_close(plan.x[0, decided], truth[decided], atol=1e-5, rtol=0)
