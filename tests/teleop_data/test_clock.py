"""Clocks: absolute deadlines, and time that moves only by hand."""

from __future__ import annotations

import pytest

from teleop_data.clock import ManualClock, MonotonicClock


def test_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(start_s=5.0)
    assert clock.now() == clock.now() == 5.0
    clock.advance(0.25)
    assert clock.now() == 5.25
    clock.sleep_until(7.0)
    assert clock.now() == 7.0
    clock.sleep_until(6.0)  # a deadline that has passed
    assert clock.now() == 7.0
    clock.advance(0.0)
    assert clock.now() == 7.0
    with pytest.raises(ValueError, match=r"backwards: -0\.1 s"):
        clock.advance(-0.1)
    assert clock.now() == 7.0


def test_monotonic_clock_never_wakes_early() -> None:
    clock = MonotonicClock()
    start_s = clock.now()
    for tick in range(1, 6):
        deadline_s = start_s + 0.004 * tick
        clock.sleep_until(deadline_s)
        assert clock.now() >= deadline_s


def test_monotonic_clock_returns_at_once_when_late() -> None:
    clock = MonotonicClock()
    start_s = clock.now()
    clock.sleep_until(start_s - 3600.0)
    assert clock.now() - start_s < 60.0
