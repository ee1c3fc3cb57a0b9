"""Levels to signal and noise: published values, exact ends, exact conversions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policy.noise_schedule import (
    LinearPath,
    NoiseSchedule,
    Prediction,
    VariancePreserving,
    add_noise,
    expected_clean,
    log_ratio,
    prediction_target,
    snr,
    to_clean,
    to_noise,
)

SCHEDULES: dict[str, NoiseSchedule] = {
    "flow": LinearPath(),
    "cosine": VariancePreserving("cosine"),
    "linear": VariancePreserving("linear"),
    "sigmoid": VariancePreserving("sigmoid"),
}
PREDICTIONS: tuple[Prediction, ...] = ("x0", "v", "epsilon")


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Index i of the published tables (K = 1000, no clean entry) is entry i + 1 of ours.
@pytest.mark.parametrize(
    ("kind", "index", "sigma"),
    [
        ("cosine", 9, 0.025), ("cosine", 19, 0.042), ("linear", 19, 0.076), ("sigmoid", 19, 0.080),
    ],
)  # fmt: skip
def test_published_noise(kind: str, index: int, sigma: float) -> None:
    level = torch.tensor((index + 1) / 1000, dtype=torch.float64)
    assert SCHEDULES[kind].sigma(level).item() == pytest.approx(sigma, abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "index_of_5", "index_of_1", "last"),
    [
        ("cosine", 261, 495, 2.4e-9), ("linear", 130, 258, 4.0e-5), ("sigmoid", 266, 499, 3.0e-7),
    ],
)  # fmt: skip
def test_published_table(kind: str, index_of_5: int, index_of_1: int, last: float) -> None:
    table = VariancePreserving(kind).alpha_squared  # type: ignore[arg-type]
    assert table.shape == (1001,)
    assert table[0] == 1
    ratio = table[1:] / (1 - table[1:])
    assert (ratio - 5).abs().argmin().item() == pytest.approx(index_of_5, abs=1)
    assert (ratio - 1).abs().argmin().item() == pytest.approx(index_of_1, abs=1)
    assert table[-1].item() == pytest.approx(last, rel=0.03)
    assert (table.diff() < 0).all()


def test_cosine_alpha_squared() -> None:
    assert VariancePreserving("cosine").alpha_squared[20].item() == pytest.approx(0.99825, abs=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_level_0_is_the_identity(name: str) -> None:
    x, noise = draw(0, 2, 5, 3), draw(1, 2, 5, 3)
    zeros = torch.zeros(2, 5, dtype=torch.float64)
    assert torch.equal(add_noise(SCHEDULES[name], x, noise, zeros), x)


def test_level_1_is_the_noise_on_the_flow_path() -> None:
    x, noise = 100 * draw(0, 2, 5, 3).float(), draw(1, 2, 5, 3).float()
    assert torch.equal(add_noise(LinearPath(), x, noise, torch.ones(2, 5)), noise)


@pytest.mark.parametrize("name", SCHEDULES)
def test_expected_clean_is_the_regression_of_unit_gaussians(name: str) -> None:
    """Least squares of x on x_k; x itself at 0."""
    x, noise = draw(0, 20000, 1), draw(1, 20000, 1)
    for level in (0.1, 0.4, 0.8, 0.99):
        k = torch.full((20000,), level, dtype=torch.float64)
        x_k = add_noise(SCHEDULES[name], x, noise, k)
        slope = (x * x_k).mean() / x_k.square().mean()
        shrunk = expected_clean(SCHEDULES[name], x_k, k)
        assert (shrunk / x_k).mean().item() == pytest.approx(slope.item(), abs=0.02)
    assert torch.equal(expected_clean(SCHEDULES[name], x, torch.zeros(20000)), x)


def test_nothing_is_expected_of_pure_noise() -> None:
    noise = draw(0, 5, 3)
    shrunk = expected_clean(LinearPath(), noise, torch.ones(5))
    assert torch.equal(shrunk, torch.zeros(5, 3, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["cosine", "linear", "sigmoid"])
def test_variance_is_preserved_between_entries_too(kind: str) -> None:
    k = torch.linspace(0, 1, 2311, dtype=torch.float64)
    power = SCHEDULES[kind].alpha(k) ** 2 + SCHEDULES[kind].sigma(k) ** 2
    torch.testing.assert_close(power, torch.ones_like(k), atol=1e-12, rtol=0)
    assert (SCHEDULES[kind].sigma(k).diff() > 0).all()


def test_velocities() -> None:
    x, noise, k = draw(0, 4, 2), draw(1, 4, 2), torch.rand(4, dtype=torch.float64)
    arguments = {"x": x, "noise": noise, "k": k}
    torch.testing.assert_close(prediction_target(LinearPath(), "v", **arguments), noise - x)
    cosine = SCHEDULES["cosine"]
    alpha, sigma = cosine.alpha(k)[:, None], cosine.sigma(k)[:, None]
    torch.testing.assert_close(
        prediction_target(cosine, "v", **arguments), alpha * noise - sigma * x
    )


@given(
    name=st.sampled_from(sorted(SCHEDULES)),
    prediction=st.sampled_from(PREDICTIONS),
    seed=st.integers(0, 1000),
)
def test_conversions_come_back(name: str, prediction: Prediction, seed: int) -> None:
    schedule, x, noise = SCHEDULES[name], draw(seed, 7, 3), draw(seed + 1, 7, 3)
    k = torch.rand(7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    k = 0.01 + 0.98 * k  # epsilon says nothing of x at 1, and no noise is there at 0
    x_k = add_noise(schedule, x, noise, k)
    output = prediction_target(schedule, prediction, x=x, noise=noise, k=k)
    clean = to_clean(schedule, prediction, output=output, x_k=x_k, k=k)
    torch.testing.assert_close(clean, x, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(to_noise(schedule, clean=clean, x_k=x_k, k=k), noise)


@pytest.mark.parametrize("prediction", ["x0", "v"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_clean_value_at_both_ends(name: str, prediction: Prediction) -> None:
    schedule, x, noise = SCHEDULES[name], draw(0, 2, 3), draw(1, 2, 3)
    k = torch.tensor([0.0, 1.0], dtype=torch.float64)
    output = prediction_target(schedule, prediction, x=x, noise=noise, k=k)
    x_k = add_noise(schedule, x, noise, k)
    clean = to_clean(schedule, prediction, output=output, x_k=x_k, k=k)
    torch.testing.assert_close(clean, x, atol=1e-9, rtol=1e-9)


def test_epsilon_at_pure_noise_stays_finite() -> None:
    ones = torch.ones(1)
    x_k = torch.full((1, 2), 0.5)
    clean = to_clean(LinearPath(), "epsilon", output=x_k, x_k=x_k, k=ones)
    assert torch.isfinite(clean).all()


def test_noise_of_a_clean_token_is_zero() -> None:
    x = torch.ones(2, 3)
    assert (to_noise(LinearPath(), clean=x, x_k=x + 1, k=torch.tensor([0.0, 0.5]))[0] == 0).all()


def test_ratios() -> None:
    k = torch.tensor([0.0, 0.25, 0.5, 1.0])
    assert snr(LinearPath(), k).tolist() == [float("inf"), 9.0, 1.0, 0.0]
    torch.testing.assert_close(
        log_ratio(LinearPath(), k), torch.tensor([15.0, 1.0986123, 0.0, -15.0])
    )


def test_unknown_kind_names_the_known() -> None:
    with pytest.raises(ValueError, match="'cubic'; have: cosine, linear, sigmoid"):
        VariancePreserving("cubic")  # type: ignore[arg-type]
