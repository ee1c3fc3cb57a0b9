"""Controller: the logic of one control step, without sockets and without time.

Both drivers use it: `control_loop` (real sockets, wall clock) and `virtual_time` (in process).

    make_request(t)   what to tell the policy: observation, executed actions, expected delay
    accept(plan, t)   a plan arrived in time for step t
    act(t)            newest plan, else the old plan continued, else hold; safety last
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deploy.action_queue import ActionQueue, Slot
from deploy.control_statistics import ControlStatistics
from deploy.latency import DelayEstimator
from deploy.safety import Intervention, SafetyLimits, filter_action
from policy.interface import Plan, Request
from teleop_data.schema import Schema

Case = Literal["newest", "continued", "hold"]
# As many executed actions as a request repeats while no plan has arrived.
MAX_EXECUTED = 64


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is commanded at one control step.

    Attributes:
        step: control step.
        action: (A,) float32; None only if nothing was ever commanded and nothing may be.
        case: newest = a plan that arrived for this step; continued = one that was there before;
            hold = the last safe command again.
        slot: the plan's slot, None if the plan had none.
        interventions: what the safety filter did.
    """

    step: int
    action: np.ndarray | None
    case: Case
    slot: Slot | None
    interventions: tuple[Intervention, ...]


class Controller:
    """Turns observations and plans into commands, one control step after the other.

    Args:
        schema: the robot's; names its action.
        limits: for the safety filter.
        max_level: a plan's slot up to this noise level may be executed.
        delay: control steps that a plan is expected to take before any was measured.
        start_from: a state feature in the action's unit, the position under position control. Its
            first value counts as the last command, so that the first action is speed-limited too.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        limits: SafetyLimits | None = None,
        max_level: float = 0.0,
        delay: int = 1,
        start_from: str | None = None,
    ) -> None:
        self._limits, self._delay = limits or SafetyLimits(), delay
        self._limits.check_size(int(np.prod(schema.action.shape)))
        if start_from is not None and schema[start_from].shape != schema.action.shape:
            raise ValueError(
                f"start_from {start_from!r} has shape {schema[start_from].shape}, the action "
                f"{schema.action.shape}; it must be the position that the action commands"
            )
        self._start_from, self._max_level = start_from, max_level
        self._begin()

    def start_episode(self, observation: Mapping[str, np.ndarray]) -> None:
        """Forget the previous episode; `observation` is the first one of the new."""
        self._begin()
        if self._start_from is not None:
            self._last = np.asarray(observation[self._start_from], np.float32).copy()

    def _begin(self) -> None:
        self.statistics = ControlStatistics()
        self._queue = ActionQueue(max_level=self._max_level)
        self._estimator = DelayEstimator(self._delay)
        self._last: np.ndarray | None = None
        self._executed: list[np.ndarray] = []  # of steps num - len .. num - 1
        self._announced: dict[int, int] = {}  # delay that each request announced, by its step
        self._is_fresh = False

    @property
    def delay(self) -> int:
        """Control steps that the next plan is expected to take."""
        return self._estimator.estimate

    @property
    def can_start(self) -> bool:
        """Whether step 0 has an action; before that an episode does not begin."""
        return self._queue.peek(0) is not None

    def make_request(
        self,
        step: int,
        observation: Mapping[str, np.ndarray],
        *,
        levels: Mapping[str, float] | None = None,
    ) -> Request:
        """What to tell the policy at `step`.

        The executed actions reach back to the newest plan that arrived, since nobody knows which
        later requests the policy has seen; who answers drops those it was told before.
        """
        since = self._queue.start_step if self._queue.start_step is not None else 0
        num = min(step - since, len(self._executed), MAX_EXECUTED)
        executed = np.stack(self._executed[-num:]) if num > 0 else None
        self._announced[step] = self.delay
        self._announced.pop(step - MAX_EXECUTED, None)
        return Request(
            step=step,
            observation=observation,
            levels=levels or {},
            executed=executed,
            delay=self.delay,
        )

    def accept(
        self,
        plan: Plan,
        step: int,
        *,
        valid_until: int | None = None,
        round_trip_s: float | None = None,
    ) -> bool:
        """Take in a plan that can be used from `step` on; whether it was newer than the held one.

        Args:
            plan: the answer to the request of `plan.start_step`.
            step: the control step that is decided next.
            valid_until: first control step at which the plan may not be executed any more.
            round_trip_s: time from request to answer, for the statistics.
        """
        self.statistics.num_network_calls += plan.network_calls
        if plan.start_step > step:  # of another episode, or of nobody's request
            return False
        is_first = self._queue.start_step is None  # it was waited for at rest, and warmed up
        delay = step - plan.start_step
        accepted = self._queue.accept(plan, valid_until=valid_until)
        if not is_first:
            self._estimator.add(delay)
            self.statistics.add_plan(
                delay=delay,
                is_late=delay > self._announced.get(plan.start_step, delay),
                round_trip_s=round_trip_s,
            )
        self._is_fresh = self._is_fresh or accepted
        self.statistics.num_outdated_plans = self._queue.num_outdated
        self.statistics.num_refused_plans = self._queue.num_refused
        return accepted

    def act(self, step: int) -> Decision:
        """What to command at `step`. ValueError if that step, or a later one, is over."""
        horizon = self._queue.num_executable(step)
        slot = self._queue.take(step)
        safe = filter_action(
            None if slot is None else slot.action,
            last=self._last,
            limits=self._limits,
            plan_age_steps=0 if slot is None else step - slot.start_step,
        )
        case: Case = "hold" if safe.is_hold else "newest" if self._is_fresh else "continued"
        decision = Decision(
            step=step,
            action=safe.action,
            case=case,
            slot=slot,
            interventions=safe.interventions,
        )
        self._is_fresh = False
        if safe.action is not None:
            self._last = safe.action
            self._executed = [*self._executed[1 - MAX_EXECUTED :], safe.action]
        self.statistics.add_decision(case, interventions=safe.interventions, horizon=horizon)
        return decision
