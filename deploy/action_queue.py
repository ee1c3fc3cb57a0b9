"""Action queue: future actions by absolute control step. A plan is a function of time, not a list.

held plan     start 4:  a4 a5 a6 a7 a8
taken                   ^^ ^^             steps 4 and 5 are over and never change
newer plan    start 5:     b5 b6 b7 b8 b9
afterwards                    b6 b7 b8 b9  b5 comes too late and is never executed
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policy.interface import Plan


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One action of a plan.

    Attributes:
        step: control step it is meant for.
        action: (A,) float32.
        level: its noise level in the plan.
        start_step: control step of the observation behind the plan.
    """

    step: int
    action: np.ndarray
    level: float
    start_step: int


class ActionQueue:
    """Gives the action for a control step at most once, and never an earlier one afterwards.

    The newest plan has the only say about every step that is still to come, so that a slot it is
    unsure about is not executed from an older, more confident plan.

    Args:
        max_level: a slot up to this noise level may be executed; 0 = decided ones only.

    Attributes:
        num_accepted: plans taken in.
        num_outdated: plans refused since a newer one was held already.
        num_refused: plans refused since they were not finite or misshapen.
    """

    def __init__(self, *, max_level: float = 0.0) -> None:
        if not 0 <= max_level <= 1:
            raise ValueError(f"max_level {max_level}; a noise level is in [0, 1]")
        self._max_level = max_level
        self.num_accepted = self.num_outdated = self.num_refused = 0
        self.clear()

    def clear(self) -> None:
        """Forget the plan and begin again at step 0. The counts stay."""
        self._plan: Plan | None = None
        self._valid_until = 0
        self._next_step = 0

    @property
    def start_step(self) -> int | None:
        """Control step of the observation behind the plan that is held."""
        return None if self._plan is None else self._plan.start_step

    def accept(self, plan: Plan, *, valid_until: int | None = None) -> bool:
        """Take in `plan` unless it is older than the one held, or broken; whether it was taken.

        Args:
            plan: its slots for steps that are over are ignored.
            valid_until: first control step at which it may not be executed any more.
        """
        if plan.actions.ndim != 2 or plan.levels.shape != plan.actions.shape[:1]:
            self.num_refused += 1
            return False
        if not (np.isfinite(plan.actions).all() and np.isfinite(plan.levels).all()):
            self.num_refused += 1  # all of it: one bad entry says that the others are no better
            return False
        if self._plan is not None and plan.start_step <= self._plan.start_step:
            self.num_outdated += 1
            return False
        end = plan.start_step + len(plan.actions)
        self._plan, self._valid_until = plan, end if valid_until is None else min(end, valid_until)
        self.num_accepted += 1
        return True

    def peek(self, step: int) -> Slot | None:
        """The executable slot for `step`, None if the plan has none. Takes nothing."""
        plan = self._plan
        if plan is None or step < self._next_step:
            return None
        if not plan.start_step <= step < self._valid_until:
            return None
        level = float(plan.levels[step - plan.start_step])
        if level > self._max_level:
            return None
        action = plan.actions[step - plan.start_step].astype(np.float32)
        return Slot(step=step, action=action, level=level, start_step=plan.start_step)

    def take(self, step: int) -> Slot | None:
        """The slot for `step`, which is over afterwards, executable or not.

        Raises:
            ValueError: the step, or a later one, was taken before.
        """
        if step < self._next_step:
            raise ValueError(f"step {step} is over; the next one is {self._next_step} or later")
        slot = self.peek(step)
        self._next_step = step + 1
        return slot

    def num_executable(self, step: int) -> int:
        """How many steps in a row, from `step` on, the held plan can drive the robot."""
        num = 0
        while self.peek(step + num) is not None:
            num += 1
        return num
