"""Comparisons: published and exact values, and what pairing is worth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.experiment.comparison import difference, ratio


def pairs(both: int, only_one: int, only_other: int, neither: int):
    one = [True] * (both + only_one) + [False] * (only_other + neither)
    other = [True] * both + [False] * only_one + [True] * only_other + [False] * neither
    return np.array(one), np.array(other)


def test_the_interval_of_a_difference_is_newcombes():
    """Statistics in Medicine 17 (1998) 2635, table II, method 10."""
    estimate = difference(*pairs(36, 12, 2, 0))
    assert estimate.value == pytest.approx(0.2)
    assert (estimate.low, estimate.high) == pytest.approx((0.0569, 0.3404), abs=1e-4)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_an_interval_holds_the_difference_and_turns_with_it(rows: list[tuple[bool, bool]]):
    one, other = np.array(rows).T
    there, back = difference(one, other), difference(other, one)
    assert -1 <= there.low <= there.value <= there.high <= 1
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
    assert there.num == len(rows)


def test_where_all_succeed_the_difference_is_still_uncertain():
    all_right = np.ones(20, bool)
    estimate = difference(all_right, all_right)
    assert estimate.value == 0
    assert estimate.low < -0.1
    assert estimate.high > 0.1


def test_a_ratio_is_resampled_in_pairs():
    one, other = pairs(70, 0, 20, 10)
    estimate = ratio(one, other)
    assert estimate is not None
    assert estimate.value == pytest.approx(70 / 90)
    # of the delta method: every success of one is one of the other
    deviation = (70 / 90 * 20 / 90 / 90) ** 0.5
    assert estimate.low == pytest.approx(estimate.value - 1.96 * deviation, abs=0.015)
    assert estimate.high == pytest.approx(estimate.value + 1.96 * deviation, abs=0.015)
    rng = np.random.default_rng(1)
    shuffled = ratio(rng.permutation(one), other)
    assert shuffled is not None
    assert shuffled.high - shuffled.low > 1.2 * (estimate.high - estimate.low)
    assert ratio(one, other) == estimate  # seeded


def test_nothing_is_a_share_of_nothing():
    assert ratio(np.ones(3, bool), np.zeros(3, bool)) is None
    with pytest.raises(ValueError, match="at least one"):
        difference(np.ones(0, bool), np.ones(0, bool))
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\)"):
        difference(np.ones(3, bool), np.ones(2, bool))


def test_words():
    estimate = difference(*pairs(36, 12, 2, 0))
    assert estimate.in_points() == "+20 points [+6, +34]"
    ratio_of = ratio(*pairs(10, 0, 10, 0))
    assert ratio_of is not None
    assert ratio_of.as_ratio().startswith("0.50 [0.")
