"""Loss weights: the identities behind them, their ends, and the fused SNR vector."""

from __future__ import annotations

import pytest
import torch

from policy.loss_weight import CappedVelocity, Constant, FusedSnr, MinSnr, fused_snr
from policy.noise_schedule import (
    LinearPath,
    NoiseSchedule,
    Prediction,
    VariancePreserving,
    add_noise,
    prediction_target,
    snr,
    to_noise,
)

LEVELS = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)


def errors(schedule: NoiseSchedule, prediction: Prediction) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared errors of the prediction and of the clean value it stands for, at `LEVELS`."""
    generator = torch.Generator().manual_seed(0)
    x, guess, noise = torch.randn(3, 19, 4, generator=generator, dtype=torch.float64)
    x_k = add_noise(schedule, x, noise, LEVELS)
    guessed_noise = to_noise(schedule, clean=guess, x_k=x_k, k=LEVELS)
    target = prediction_target(schedule, prediction, x=x, noise=noise, k=LEVELS)
    guessed = prediction_target(schedule, prediction, x=guess, noise=guessed_noise, k=LEVELS)
    return (target - guessed).square().sum(-1), (x - guess).square().sum(-1)


@pytest.mark.parametrize("kind", ["cosine", "linear", "sigmoid"])
def test_error_of_noise_is_snr_times_error_of_clean(kind) -> None:
    schedule = VariancePreserving(kind)
    error, clean = errors(schedule, "epsilon")
    torch.testing.assert_close(error, snr(schedule, LEVELS) * clean, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", ["cosine", "linear", "sigmoid"])
def test_error_of_velocity_is_snr_plus_one_times_error_of_clean(kind) -> None:
    schedule = VariancePreserving(kind)
    error, clean = errors(schedule, "v")
    torch.testing.assert_close(error, (snr(schedule, LEVELS) + 1) * clean, rtol=1e-5, atol=0)


def test_error_of_flow_velocity_is_error_of_clean_over_level_squared() -> None:
    error, clean = errors(LinearPath(), "v")
    torch.testing.assert_close(error, clean / LEVELS**2, rtol=1e-5, atol=0)


def test_capped_velocity_has_a_cap_and_a_floor() -> None:
    k = torch.tensor([0.0, 0.1, 0.25, 0.5, 1.0])
    assert CappedVelocity()(LinearPath(), k).tolist() == [25.0, 25.0, 16.0, 4.0, 1.0]
    assert CappedVelocity(cap=9, floor=5)(LinearPath(), k).tolist() == [9.0, 9.0, 9.0, 5.0, 5.0]


def test_constant() -> None:
    assert Constant(2.5)(LinearPath(), torch.rand(2, 3)).tolist() == [[2.5] * 3] * 2


def test_min_snr_starves_pure_noise_and_capped_velocity_does_not() -> None:
    k = torch.tensor([0.0, 0.5, 0.999, 1.0])
    weight = MinSnr()(LinearPath(), k)
    assert weight[:2].tolist() == [5.0, 1.0]
    assert weight[2] < 2e-6
    assert weight[3] == 0
    assert (CappedVelocity()(LinearPath(), k) >= 1).all()


def test_fused_vector() -> None:
    clipped = torch.tensor([1.0, 0.0, 0.5, 0.0])
    fused, raw = fused_snr(torch.tensor([2.0, 0.0, 0.5, 0.0]), clipped, gamma=0.9)
    torch.testing.assert_close(fused, torch.tensor([1.0, 0.9, 0.905, 0.774]), atol=1e-6, rtol=0)
    torch.testing.assert_close(raw, torch.tensor([2.0, 0.9, 0.905, 0.774]), atol=1e-6, rtol=0)


def test_fused_snr_looks_at_the_past_only() -> None:
    k = torch.tensor([[0.1, 0.9, 0.4, 1.0], [0.1, 0.9, 1.0, 0.2]])
    weight = FusedSnr("x0")(LinearPath(), k)
    assert torch.equal(weight[0, :2], weight[1, :2])
    assert weight[0, 2] != weight[1, 2]


def test_a_clean_past_feeds_pure_noise() -> None:
    weight = FusedSnr("x0", cap=5, gamma=0.9)(LinearPath(), torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(weight, torch.tensor([[5.0, 4.5]]))


@pytest.mark.parametrize("prediction", ["x0", "v", "epsilon"])
@pytest.mark.parametrize("schedule", [LinearPath(), VariancePreserving()])
def test_without_fusion_every_prediction_has_the_min_snr_weight(schedule, prediction) -> None:
    """All three weights act on the clean value's error, so they must agree."""
    expected = MinSnr(5)(schedule, LEVELS[None])
    weight = FusedSnr(prediction, cap=5, gamma=0.0)(schedule, LEVELS[None])
    torch.testing.assert_close(weight, expected)
