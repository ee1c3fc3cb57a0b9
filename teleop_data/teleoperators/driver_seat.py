"""The driver's seat: one of several pages drives, its newest target wins, silence is noticed.

loop: place --> epoch 7, target      a target that a page sends counts only with the epoch that
page: drive(epoch 7, target)         it answers to, so none from before a reset moves the hand
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

from teleop_data.clock import Clock
from teleop_data.teleoperators.hand_target import HandTarget

Presence = Literal["present", "empty", "silent"]


@dataclass(frozen=True, kw_only=True)
class SeatView:
    """The seat at one moment.

    Attributes:
        driver: who has it, None if it is empty.
        presence: of the driver; "silent" has said nothing for too long.
        epoch: counts how often the loop has placed the target.
        target: newest, None before the first `place`.
    """

    driver: int | None
    presence: Presence
    epoch: int
    target: HandTarget | None


class DriverSeat:
    """Who drives, and where to. Every method may be called from any thread."""

    def __init__(self, clock: Clock, *, max_silence_s: float) -> None:
        """An empty seat; a driver is silent after `max_silence_s` without a word."""
        if max_silence_s <= 0:
            raise ValueError(f"max_silence_s must be positive, got {max_silence_s}")
        self._clock, self._max_silence_s = clock, max_silence_s
        self._driver: int | None = None
        self._heard_s, self._epoch = 0.0, 0
        self._target: HandTarget | None = None
        self._lock = threading.Lock()

    def take(self, page: int) -> bool:
        """Whether `page` has the seat now: it was empty, its own already, or a silent one's."""
        with self._lock:
            if self._driver not in (None, page) and not self._is_silent():
                return False
            self._driver, self._heard_s = page, self._clock.now()
            return True

    def leave(self, page: int) -> None:
        """Empty the seat if `page` has it."""
        with self._lock:
            if self._driver == page:
                self._driver = None

    def hear(self, page: int) -> None:
        """A sign of life of `page`."""
        with self._lock:
            if self._driver == page:
                self._heard_s = self._clock.now()

    def drive(self, page: int, *, epoch: int, target: HandTarget) -> bool:
        """Whether `target` counts: `page` drives and has seen the newest `epoch`."""
        with self._lock:
            if self._driver != page:
                return False
            self._heard_s = self._clock.now()
            if epoch == self._epoch and self._target is not None:
                self._target = target
                return True
            return False

    def place(self, target: HandTarget) -> None:
        """Set the target from the loop's side; what pages have sent before counts no more."""
        with self._lock:
            self._target = target
            self._epoch += 1

    def view(self) -> SeatView:
        """The seat now."""
        with self._lock:
            presence: Presence = "present"
            if self._driver is None:
                presence = "empty"
            elif self._is_silent():
                presence = "silent"
            return SeatView(
                driver=self._driver, presence=presence, epoch=self._epoch, target=self._target
            )

    def _is_silent(self) -> bool:
        return self._clock.now() - self._heard_s > self._max_silence_s
