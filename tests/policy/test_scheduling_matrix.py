"""Scheduling matrices and the rolling staircase: published examples, and what always holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.scheduling_matrix import (
    Staircase,
    autoregressive,
    full_sequence,
    pyramid,
    scheduling_matrix,
    trapezoid,
)

PYRAMID = ["444", "344", "234", "123", "012", "001", "000"]
STEEP = ["444", "344", "244", "134", "024", "013", "002", "001", "000"]
ONE_BY_ONE = ["444", "344", "244", "144", "044", "034", "024", "014", "004", "003", "002", "001",
              "000"]  # fmt: skip


def quarters(rows: list[str]) -> np.ndarray:
    return np.array([[int(digit) for digit in row] for row in rows]) / 4


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (full_sequence(4, 3), ["444", "333", "222", "111", "000"]),
        (pyramid(4, 3), PYRAMID),
        (pyramid(4, 3, uncertainty_scale=2), STEEP),
        (autoregressive(4, 3), ONE_BY_ONE),
        (trapezoid(2, 4), ["2222", "1221", "0110", "0000"]),
        (trapezoid(2, 3), ["222", "121", "010", "000"]),
    ],
)
def test_examples(matrix: np.ndarray, expected: list[str]) -> None:
    levels = quarters(expected)
    np.testing.assert_array_equal(matrix, levels / levels.max())


@pytest.mark.parametrize(("scale", "calls"), [(0, 50), (1, 109), (50, 3000)])
def test_published_costs(scale: float, calls: int) -> None:
    assert len(scheduling_matrix(50, 60, uncertainty_scale=scale)) - 1 == calls


@given(levels=st.integers(1, 12), tokens=st.integers(1, 12), scale=st.floats(0, 12))
def test_causal_matrices(levels: int, tokens: int, scale: float) -> None:
    matrix = scheduling_matrix(levels, tokens, uncertainty_scale=scale)
    assert (matrix[0] == 1).all()
    assert (matrix[-1] == 0).all()
    assert (matrix[-2] > 0).any()
    assert (np.diff(matrix, axis=0) <= 0).all()
    assert (np.diff(matrix, axis=0) >= -1 / levels - 1e-12).all()
    assert (np.diff(matrix, axis=1) >= 0).all()


@given(levels=st.integers(1, 12), tokens=st.integers(1, 12))
def test_autoregressive_moves_one_token_at_a_time(levels: int, tokens: int) -> None:
    matrix = autoregressive(levels, tokens)
    assert len(matrix) == levels * tokens + 1
    assert ((np.diff(matrix, axis=0) < 0).sum(axis=1) == 1).all()


@given(levels=st.integers(1, 12), tokens=st.integers(1, 12), scale=st.floats(0, 12))
def test_trapezoid_is_symmetric_and_starts_at_noise(levels: int, tokens: int, scale: float) -> None:
    matrix = trapezoid(levels, tokens, uncertainty_scale=scale)
    np.testing.assert_array_equal(matrix, matrix[:, ::-1])
    assert (matrix[0] == 1).all()  # no column is clean from the start
    assert (matrix[-1] == 0).all()
    assert (np.diff(matrix, axis=0) <= 0).all()
    half = matrix[:, : (tokens + 1) // 2]
    assert (np.diff(half, axis=1) >= 0).all()


@pytest.mark.parametrize(("levels", "tokens"), [(0, 3), (4, 0)])
def test_empty_matrices_are_refused(levels: int, tokens: int) -> None:
    with pytest.raises(ValueError, match="at least 1 level and 1 token"):
        full_sequence(levels, tokens)


def test_staircase_vector() -> None:
    stairs = Staircase(ramp=8, committed=4, per_call=4, offset=0)
    expected = [0, 0, 0, 0, 0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1, 1, 1, 1]
    np.testing.assert_array_equal(stairs.levels(16, step=0), expected)
    np.testing.assert_array_equal(stairs.levels(16, step=7), expected)
    np.testing.assert_array_equal(stairs.targets(16, step=0), [0] * 8 + expected[4:12])


def test_offset_decides_one_call_earlier_or_later() -> None:
    late, early = Staircase(ramp=4, offset=1), Staircase(ramp=4, offset=0)
    np.testing.assert_array_equal(late.levels(5, step=0), [0.25, 0.5, 0.75, 1, 1])
    np.testing.assert_array_equal(late.targets(5, step=0), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(early.levels(5, step=0), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(early.targets(5, step=0), [0, 0, 0.25, 0.5, 0.75])


def test_blocks_begin_at_multiples_of_the_absolute_step() -> None:
    stairs = Staircase(ramp=4, block=4)
    np.testing.assert_array_equal(stairs.levels(7, step=1), [0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(stairs.levels(7, step=4), [0.25] * 4 + [1, 1, 1])
    np.testing.assert_array_equal(stairs.targets(7, step=4), [0] * 4 + [1, 1, 1])
    np.testing.assert_array_equal(stairs.targets(7, step=3), [0, 0.25, 0.25, 0.25, 0.25, 1, 1])
    two = Staircase(ramp=8, block=2)
    np.testing.assert_array_equal(two.levels(6, step=5) * 8, [0, 2, 2, 4, 4, 6])


def test_last_level() -> None:
    stairs = Staircase(ramp=4, last_level=0.7)
    np.testing.assert_allclose(stairs.levels(6, step=0), [0.7, 0.8, 0.9, 1, 1, 1])
    np.testing.assert_allclose(stairs.targets(6, step=0), [0, 0.7, 0.8, 0.9, 1, 1])
    same = Staircase(ramp=4, last_level=0.25)
    np.testing.assert_allclose(same.levels(6, step=0), Staircase(ramp=4).levels(6, step=0))


@given(
    stairs=st.builds(
        Staircase,
        ramp=st.integers(1, 20),
        committed=st.integers(0, 6),
        per_call=st.integers(1, 6),
        offset=st.integers(0, 1),
        block=st.integers(1, 8),
        last_level=st.none() | st.floats(0.1, 1),
    ),
    step=st.integers(0, 30),
    horizon=st.integers(13, 32),
)
def test_targets_are_where_the_next_call_finds_the_slots(
    stairs: Staircase, step: int, horizon: int
) -> None:
    e = stairs.per_call
    levels, targets = stairs.levels(horizon, step=step), stairs.targets(horizon, step=step)
    np.testing.assert_allclose(targets[e:], stairs.levels(horizon, step=step + e)[: horizon - e])
    assert (targets[: stairs.committed + e] == 0).all()
    assert (levels[: stairs.committed] == 0).all()
    for values in (levels, targets):
        assert ((values >= 0) & (values <= 1)).all()
        assert (np.diff(values) >= -1e-12).all()
    assert (targets <= levels + 1e-12).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ramp": 0}, "ramp, per_call, block >= 1"),
        ({"ramp": 4, "per_call": 0}, "ramp, per_call, block >= 1"),
        ({"ramp": 4, "committed": -1}, "committed >= 0"),
        ({"ramp": 4, "offset": 2}, "offset is 0 or 1, got 2"),
        ({"ramp": 4, "last_level": 0.0}, r"last_level lies in \(0, 1\], got 0.0"),
    ],
)
def test_impossible_staircases_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Staircase(**arguments)
