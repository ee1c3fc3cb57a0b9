"""Windows: when a perturbation is active, drawn anew for every episode.

    anytime          begins at a step drawn from `start`
    before_contact   the same, but never once the hand has touched a thing
    during_contact   begins as many steps after the first touch as are drawn from `offset`

    step      0 . . . begin . . . . end . . .
    active              |   |   |   |

Every window lasts its full length, so one that begins before contact may go on into it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Phase = Literal["anytime", "before_contact", "during_contact"]
Duration = int | str  # control steps, or seconds as "0.5 s"


def control_steps(duration: Duration, *, rate_hz: float) -> int:
    """`duration` as a number of control steps, rounded to the nearest.

    Raises:
        ValueError: it is neither a whole number, of steps, nor seconds as "0.5 s".
    """
    if isinstance(duration, int) and not isinstance(duration, bool):
        return duration
    seconds = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*s\s*", str(duration))
    if seconds is None:
        raise ValueError(f"{duration!r} is no duration; give control steps, or seconds as '0.5 s'")
    return int(float(seconds[1]) * rate_hz + 0.5)


@dataclass(frozen=True, kw_only=True)
class WindowRule:
    """When episodes are perturbed; ranges are (first, last) control steps, both included.

    Attributes:
        start: the window begins at a step drawn uniformly from here; not used during contact.
        length: control steps of the window; None means to the end of the episode.
        phase: whether it waits for contact, see the top of this file.
        offset: from the first contact to the window's begin, drawn likewise; used during contact.
    """

    start: tuple[int, int] = (0, 0)
    length: int | None = None
    phase: Phase = "anytime"
    offset: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        for name, given in (("start", self.start), ("offset", self.offset)):
            if len(given) != 2 or not 0 <= given[0] <= given[1]:
                raise ValueError(
                    f"{name} is {given}, expected (first, last) with 0 <= first <= last"
                )
        if self.length is not None and self.length < 1:
            raise ValueError(
                f"length is {self.length}, expected at least 1, or None for 'to the end'"
            )
        if self.phase not in get_args(Phase):
            raise ValueError(f"phase is {self.phase!r}, expected one of {get_args(Phase)}")


class Window:
    """One episode's window. `advance` it once a control step, in order.

    Attributes:
        bounds: (begin, end), end excluded and None for "to the end"; None as long as nobody can
            know when it begins, and for good where it does not.
        is_active: whether the newest step lies in it.
    """

    def __init__(self, rule: WindowRule, *, rng: np.random.Generator) -> None:
        """Draw the window of one episode from `rng`."""
        self._rule = rule
        self._start, self._offset = (
            int(rng.integers(first, last + 1)) for first, last in (rule.start, rule.offset)
        )
        self._next_step = 0
        self._is_too_late = False
        self.is_active = False
        self.bounds = self._from(self._start) if rule.phase == "anytime" else None

    def advance(self, step: int, *, touches: Callable[[], bool]) -> bool:
        """Whether `step` lies in the window. `touches` tells whether the hand touches a thing now;
        it is asked only if that matters.

        Raises:
            ValueError: a step is left out or repeated.
        """
        if step != self._next_step:
            raise ValueError(
                f"got step {step}, expected {self._next_step}: advance by every control step once, "
                "in order, after a reset"
            )
        self._next_step += 1
        if self.bounds is None and not self._is_too_late:
            self._look(step, touches=touches)
        self.is_active = self.bounds is not None and (
            self.bounds[0] <= step and (self.bounds[1] is None or step < self.bounds[1])
        )
        return self.is_active

    def _look(self, step: int, *, touches: Callable[[], bool]) -> None:
        """See whether the window begins, or never will."""
        if self._rule.phase == "during_contact":
            if touches():
                self.bounds = self._from(step + self._offset)
        elif touches():
            self._is_too_late = True
        elif step == self._start:
            self.bounds = self._from(step)

    def _from(self, begin: int) -> tuple[int, int | None]:
        length = self._rule.length
        return begin, None if length is None else begin + length
