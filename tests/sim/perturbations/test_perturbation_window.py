"""Windows: bounds, the waiting for contact, and durations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.perturbations.window import Phase, Window, WindowRule, control_steps


def active_steps(rule: WindowRule, *, seed: int = 0, touched: set[int] | None = None) -> list[int]:
    """Of 60 control steps, in those of `touched` the hand touches something."""
    window = Window(rule, rng=np.random.default_rng(seed))
    steps = [s for s in range(60) if window.advance(s, touches=lambda s=s: s in (touched or set()))]
    if window.bounds is None:
        assert not steps
    else:
        begin, end = window.bounds
        assert steps == list(range(begin, 60 if end is None else min(end, 60)))
    return steps


@given(seed=st.integers(0, 2**31), first=st.integers(0, 20), more=st.integers(0, 20))
def test_windows_begin_within_their_range(seed: int, first: int, more: int):
    steps = active_steps(WindowRule(start=(first, first + more), length=7), seed=seed)
    assert first <= steps[0] <= first + more
    assert len(steps) == 7


def test_without_a_length_it_lasts_to_the_end():
    assert active_steps(WindowRule(start=(50, 50))) == list(range(50, 60))


def test_anytime_is_known_at_once_and_does_not_ask_for_contact():
    def never() -> bool:
        raise AssertionError("asked for contact")

    window = Window(WindowRule(start=(3, 3), length=2), rng=np.random.default_rng(0))
    assert window.bounds == (3, 5)
    assert [window.advance(step, touches=never) for step in range(6)] == [
        *(False, False, False, True, True, False)
    ]


@pytest.mark.parametrize(
    ("touched", "expected"),
    [(set(), [8, 9, 10]), ({12}, [8, 9, 10]), ({9}, [8, 9, 10]), ({8}, []), ({2, 3}, [])],
)
def test_before_contact_never_begins_once_a_thing_was_touched(touched: set, expected: list):
    rule = WindowRule(start=(8, 8), length=3, phase="before_contact")
    assert active_steps(rule, touched=touched) == expected


def test_during_contact_begins_with_the_first_touch_or_as_much_later():
    at_once = WindowRule(start=(2, 2), length=4, phase="during_contact")
    assert active_steps(at_once, touched={11, 12, 30}) == [11, 12, 13, 14]
    assert active_steps(at_once) == []
    later = WindowRule(length=2, phase="during_contact", offset=(3, 6))
    begins = {active_steps(later, seed=seed, touched={11, 30})[0] for seed in range(40)}
    assert begins == {14, 15, 16, 17}


@pytest.mark.parametrize("phase", ["anytime", "before_contact", "during_contact"])
def test_skipped_and_repeated_steps_are_refused(phase: Phase):
    window = Window(WindowRule(phase=phase), rng=np.random.default_rng(0))
    window.advance(0, touches=lambda: False)
    for step in (0, 2):
        with pytest.raises(ValueError, match="expected 1"):
            window.advance(step, touches=lambda: False)


@pytest.mark.parametrize(
    ("duration", "rate_hz", "expected"),
    [(7, 10, 7), ("0.5 s", 10, 5), ("0.5s", 25, 13), (".5 s", 10, 5), ("2 s", 12.5, 25)],
)
def test_durations_in_steps_and_seconds(duration: int | str, rate_hz: float, expected: int):
    assert control_steps(duration, rate_hz=rate_hz) == expected


@pytest.mark.parametrize("wrong", ["2", "s", "-1 s", "1 m", 1.5, True, None])
def test_other_durations_are_refused(wrong):
    with pytest.raises(ValueError, match="seconds as '0.5 s'"):
        control_steps(wrong, rate_hz=10)
