"""Normalisation and its inverse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from policy.normalizer import CLIP, Normalizer
from teleop_data.schema import Feature
from teleop_data.statistics import FeatureStatistics

STATISTICS = FeatureStatistics(
    count=9,
    minimum=np.array([-1.0, 10.0, 3.0]),
    maximum=np.array([3.0, 20.0, 3.0]),
    mean=np.array([0.0, 12.0, 3.0]),
    std=np.array([0.5, 4.0, 0.0]),
    q01=np.array([0.0, 11.0, 3.0]),
    q99=np.array([2.0, 15.0, 3.0]),
)  # the last entry never changes


def normalizer(scaling="range", *, angles: tuple[int, ...] = ()) -> Normalizer:
    return Normalizer(Feature(name="x", shape=(3,), angles=angles), STATISTICS, scaling=scaling)


@pytest.mark.parametrize("scaling", ["range", "standard"])
def test_there_and_back(scaling) -> None:
    values = torch.tensor([[-1.0, 20.0, 3.0], [0.3, 14.0, 3.0], [7.0, 0.0, 3.5]])
    scaled = normalizer(scaling)
    torch.testing.assert_close(scaled.unnormalize(scaled.normalize(values)), values)


def test_range_ends_at_one() -> None:
    values = torch.tensor([[-1.0, 10.0, 3.0], [3.0, 20.0, 3.0], [1.0, 15.0, 3.0]])
    assert normalizer().normalize(values).tolist() == [[-1, -1, 0], [1, 1, 0], [0, 0, 0]]


def test_standard_has_unit_scale() -> None:
    assert normalizer("standard").normalize(torch.tensor([0.5, 8.0, 3.0])).tolist() == [1, -1, 0]


def test_quantile_ends_at_one_and_clips_beyond() -> None:
    scaled = normalizer("quantile")
    values = torch.tensor([[0.0, 15.0, 3.0], [2.4, 13.0, 3.0], [-90.0, 90.0, 3.0]])
    expected = torch.tensor([[-1.0, 1.0, 0.0], [1.4, 0.0, 0.0], [-CLIP, CLIP, 0.0]])
    torch.testing.assert_close(scaled.normalize(values), expected)
    inside = torch.tensor([2.4, 13.0, 3.0])
    torch.testing.assert_close(scaled.unnormalize(scaled.normalize(inside)), inside)


@pytest.mark.parametrize("scaling", ["range", "quantile", "standard"])
def test_an_entry_that_never_changes_is_only_shifted(scaling) -> None:
    values = torch.tensor([1.0, 12.0, 3.25])
    assert normalizer(scaling).normalize(values)[2].item() == 0.25


def test_angles_become_sine_and_cosine_after_the_plain_entries() -> None:
    scaled = normalizer(angles=(1,))
    assert scaled.normalized_size == 4
    values = torch.tensor([[3.0, np.pi / 6, 3.0], [3.0, np.pi / 6 + 2 * np.pi, 3.0]])
    expected = torch.tensor([1.0, 0.0, 0.5, 3**0.5 / 2]).expand(2, -1)
    torch.testing.assert_close(scaled.normalize(values), expected)
    with pytest.raises(ValueError, match="no inverse"):
        scaled.unnormalize(expected)


def test_whole_numbers_and_doubles_become_float32() -> None:
    assert normalizer().normalize(torch.tensor([3, 20, 3])).dtype == torch.float32
    assert normalizer().normalize(torch.zeros(2, 3, dtype=torch.float64)).dtype == torch.float32


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match="no scaling 'log'; have: range, quantile, standard"):
        normalizer("log")
    with pytest.raises(ValueError, match="'x' has 2 entries, its statistics 3"):
        Normalizer(Feature(name="x", shape=(2,)), STATISTICS)
