"""Safety: whatever is proposed, what is commanded is finite, inside the limits and not too fast."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deploy.safety import SafetyLimits, filter_action

LIMITS = SafetyLimits(
    low=(-1.0, -2.0), high=(1.0, 2.0), max_change=(0.5, 0.25), max_plan_age_steps=4
)
HERE = np.zeros(2, np.float32)
any_action = st.one_of(
    st.none(),
    hnp.arrays(np.float32, (2,), elements=st.floats(width=32)),
    hnp.arrays(np.float64, st.integers(0, 3), elements=st.floats()),
)


@given(st.lists(st.tuples(any_action, st.integers(0, 8)), max_size=30))
def test_a_stream_of_anything_stays_within_every_limit(proposals):
    last = HERE
    for proposed, age in proposals:
        safe = filter_action(proposed, last=last, limits=LIMITS, plan_age_steps=age)
        action = safe.action
        assert action is not None
        assert action.dtype == np.float32
        assert np.isfinite(action).all()
        assert (np.abs(action) <= [1.0, 2.0]).all()
        assert (np.abs(action - last) <= np.array([0.5, 0.25]) + 1e-6).all()
        if safe.is_hold:
            np.testing.assert_array_equal(action, last)
        last = action


def test_what_is_within_every_limit_passes_bit_for_bit():
    proposed = np.array([0.1, -0.2], np.float32)
    safe = filter_action(proposed, last=HERE, limits=LIMITS)
    assert safe.action.tobytes() == proposed.tobytes()
    assert safe.interventions == ()


@pytest.mark.parametrize(
    ("proposed", "age", "expected", "interventions"),
    [
        ([0.4, 9.0], 0, [0.4, 0.25], ("limit", "speed")),
        ([-0.9, 0.0], 0, [-0.5, 0.0], ("speed",)),
        ([0.1, np.nan], 0, [0.2, 0.2], ("not_finite",)),
        ([0.1, np.inf], 0, [0.2, 0.2], ("not_finite",)),
        ([0.1, 0.1], 5, [0.2, 0.2], ("stale_plan",)),
        ([0.1, 0.1, 0.1], 0, [0.2, 0.2], ("misshapen",)),
        (None, 0, [0.2, 0.2], ("no_action",)),
    ],
)
def test_each_intervention(proposed, age, expected, interventions):
    last = np.array([0.2, 0.2] if "speed" not in interventions else [0.0, 0.0], np.float32)
    proposed = None if proposed is None else np.array(proposed, np.float32)
    safe = filter_action(proposed, last=last, limits=LIMITS, plan_age_steps=age)
    np.testing.assert_allclose(safe.action, np.float32(expected))
    assert safe.interventions == interventions


def test_hold_is_a_copy_of_the_last_command_never_zeros():
    last = np.array([0.7, -1.5], np.float32)
    held = filter_action(None, last=last, limits=LIMITS).action
    np.testing.assert_array_equal(held, last)
    held[0] = 0
    assert last[0] == np.float32(0.7)


def test_without_a_last_command_there_is_nothing_to_hold_and_no_speed():
    assert filter_action(None, last=None, limits=LIMITS).action is None
    first = filter_action(np.float32([0.9, 1.9]), last=None, limits=LIMITS)
    np.testing.assert_array_equal(first.action, np.float32([0.9, 1.9]))


def test_angles_change_the_short_way_round():
    limits = SafetyLimits(max_change=(0.5,), angles=(0,))
    last = np.array([3.0], np.float32)
    near = filter_action(np.float32([-3.0]), last=last, limits=limits)  # 0.283 rad further
    assert near.interventions == ()
    far = filter_action(np.float32([-2.0]), last=last, limits=limits)
    np.testing.assert_allclose(far.action, [3.5])


def test_wrong_limits_are_refused_at_once():
    with pytest.raises(ValueError, match="above high"):
        SafetyLimits(low=(1.0,), high=(0.0,))
    with pytest.raises(ValueError, match="must be positive"):
        SafetyLimits(max_change=(0.1, 0.0))
    with pytest.raises(ValueError, match="low has 1 values; the action has 2"):
        SafetyLimits(low=(0.0,)).check_size(2)
