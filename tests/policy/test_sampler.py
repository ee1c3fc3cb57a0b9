"""Single steps and whole matrices, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from policy.noise_schedule import LinearPath, VariancePreserving, add_noise, log_ratio
from policy.sampler import ddim_step, sample, second_order_step
from policy.scheduling_matrix import autoregressive, full_sequence, pyramid, trapezoid

SCHEDULES = [LinearPath(), VariancePreserving("cosine"), VariancePreserving("linear")]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def levels(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_step_with_the_true_clean_value_stays_on_the_path(schedule) -> None:
    x, noise = draw(0, 1, 5, 3), draw(1, 1, 5, 3)
    k, k_next = levels(1.0, 0.8, 0.5, 0.3, 0.05), levels(0.7, 0.1, 0.499, 0.0, 0.0)
    stepped = ddim_step(schedule, x_k=add_noise(schedule, x, noise, k), clean=x, k=k, k_next=k_next)
    torch.testing.assert_close(stepped, add_noise(schedule, x, noise, k_next))


def test_tokens_that_do_not_move_are_copied_to_the_bit() -> None:
    x_k, clean = draw(0, 1, 4, 3).float(), draw(1, 1, 4, 3).float()
    k, k_next = levels(0.0, 0.3, 0.3, 1.0).float(), levels(0.0, 0.3, 0.2, 1.0).float()
    stepped = ddim_step(LinearPath(), x_k=x_k, clean=clean, k=k, k_next=k_next)
    for token in (0, 1, 3):
        assert torch.equal(stepped[:, token], x_k[:, token])
    assert not torch.equal(stepped[:, 2], x_k[:, 2])


def test_last_step_is_the_clean_value() -> None:
    x_k, clean = draw(0, 1, 2, 3), draw(1, 1, 2, 3)
    stepped = ddim_step(
        LinearPath(), x_k=x_k, clean=clean, k=levels(1.0, 0.125), k_next=levels(0.0, 0.0)
    )
    torch.testing.assert_close(stepped, clean)


@pytest.mark.parametrize("kind", ["cosine", "linear", "sigmoid"])
def test_churn_is_that_of_ddpm(kind) -> None:
    """eta sqrt((1 - a') / (1 - a)) sqrt(1 - a / a') with a = alpha^2 (Song et al. 2021, eq. 16)."""
    schedule, k, k_next = VariancePreserving(kind), levels(0.9, 0.5, 0.2), levels(0.6, 0.4, 0.1)
    zeros, ones = torch.zeros(1, 3, 1, dtype=torch.float64), torch.ones(1, 3, 1)
    stepped = ddim_step(schedule, x_k=zeros, clean=zeros, k=k, k_next=k_next, eta=0.7, noise=ones)
    a, a_next = schedule.alpha(k) ** 2, schedule.alpha(k_next) ** 2
    expected = 0.7 * ((1 - a_next) / (1 - a)).sqrt() * (1 - a / a_next).sqrt()
    torch.testing.assert_close(stepped[..., 0], expected)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_churn_keeps_the_noise_power(schedule) -> None:
    x, noise, fresh = torch.zeros(1, 40_000, 1), *draw(0, 2, 1, 40_000, 1).float()
    k = torch.full((1, 40_000), 0.7)
    k_next = torch.full_like(k, 0.4)
    x_k = add_noise(schedule, x, noise, k)
    stepped = ddim_step(schedule, x_k=x_k, clean=x, k=k, k_next=k_next, eta=1.0, noise=fresh)
    assert stepped.std().item() == pytest.approx(schedule.sigma(k_next)[0, 0].item(), rel=0.02)
    assert np.corrcoef(stepped.flatten(), noise.flatten())[0, 1] < 0.9


def test_churn_needs_noise() -> None:
    x = torch.zeros(1, 1, 1)
    with pytest.raises(ValueError, match="eta > 0 needs noise"):
        ddim_step(LinearPath(), x_k=x, clean=x, k=levels(1.0), k_next=levels(0.5), eta=0.1)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    "matrix", [full_sequence(5, 6), pyramid(5, 6), autoregressive(3, 6), trapezoid(4, 6)]
)
def test_a_perfect_denoiser_gives_the_truth(matrix: np.ndarray, schedule) -> None:
    truth, calls = draw(0, 2, 6, 3), []

    def denoise(x: Tensor, k: Tensor) -> Tensor:
        calls.append(k[0].numpy())
        return truth

    sampled = sample(denoise, draw(1, 2, 6, 3), matrix, schedule=schedule)
    torch.testing.assert_close(sampled, truth)
    np.testing.assert_array_equal(calls, matrix[:-1])


def test_a_token_that_is_clean_in_row_0_stays() -> None:
    matrix = full_sequence(4, 3)
    matrix[:, 0] = 0.0
    x = draw(0, 1, 3, 2)
    sampled = sample(lambda x, k: torch.zeros_like(x), x, matrix, schedule=LinearPath())
    assert torch.equal(sampled[:, 0], x[:, 0])
    assert (sampled[:, 1:] == 0).all()


def test_a_matrix_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(5, 4\) does not fit a plan of 3 slots"):
        sample(lambda x, k: x, draw(0, 1, 3, 2), full_sequence(4, 4), schedule=LinearPath())


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_second_order_step_is_dpm_solver_2m(schedule) -> None:
    x_k, clean, previous = draw(0, 3, 1, 2, 2)
    k_previous, k, k_next = levels(0.9, 0.6), levels(0.7, 0.5), levels(0.55, 0.2)
    h = log_ratio(schedule, k_next) - log_ratio(schedule, k)
    r = (log_ratio(schedule, k) - log_ratio(schedule, k_previous)) / h
    r = r.unsqueeze(-1)
    direction = (1 + 1 / (2 * r)) * clean - 1 / (2 * r) * previous
    alpha, sigma, alpha_next, sigma_next = (
        f(level).unsqueeze(-1) for level in (k, k_next) for f in (schedule.alpha, schedule.sigma)
    )
    expected = sigma_next / sigma * x_k + (alpha_next - alpha * sigma_next / sigma) * direction
    stepped = second_order_step(
        schedule, x_k=x_k, clean=clean, previous=previous,
        k_previous=k_previous, k=k, k_next=k_next,
    )  # fmt: skip
    torch.testing.assert_close(stepped, expected)


def test_second_order_falls_back_without_a_past_and_at_the_end() -> None:
    x_k, clean, previous = draw(0, 3, 1, 4, 2)
    k_previous, k = levels(1.0, 0.5, 0.8, 0.8), levels(0.5, 0.5, 0.5, 0.5)
    k_next = levels(0.3, 0.3, 0.0, 0.5)  # new slot, slot that stood still, last step, no step
    stepped = second_order_step(
        LinearPath(), x_k=x_k, clean=clean, previous=previous,
        k_previous=k_previous, k=k, k_next=k_next,
    )  # fmt: skip
    first_order = ddim_step(LinearPath(), x_k=x_k, clean=clean, k=k, k_next=k_next)
    assert torch.equal(stepped, first_order)


def gaussian_error(num_steps: int, *, second_order: bool) -> float:
    """Error at k = 0.2 from k = 0.8 for data N(0, 0.5^2), whose exact path is known."""
    schedule, power = LinearPath(), 0.25
    grid = torch.linspace(0.8, 0.2, num_steps + 1, dtype=torch.float64)
    total = schedule.alpha(grid) ** 2 * power + schedule.sigma(grid) ** 2
    x = torch.ones(1, 1, 1, dtype=torch.float64)
    previous, k_previous = x, torch.ones(1, 1, dtype=torch.float64)
    for i in range(num_steps):
        k, k_next = grid[i].view(1, 1), grid[i + 1].view(1, 1)
        clean = schedule.alpha(k) * power / total[i] * x
        if second_order:
            x = second_order_step(
                schedule, x_k=x, clean=clean, previous=previous,
                k_previous=k_previous, k=k, k_next=k_next,
            )  # fmt: skip
        else:
            x = ddim_step(schedule, x_k=x, clean=clean, k=k, k_next=k_next)
        previous, k_previous = clean, k
    return abs(x.item() - (total[-1] / total[0]).sqrt().item())


def test_orders_of_convergence() -> None:
    first = [gaussian_error(n, second_order=False) for n in (32, 64)]
    second = [gaussian_error(n, second_order=True) for n in (128, 256)]
    assert first[0] / first[1] == pytest.approx(2, abs=0.3)
    assert second[0] / second[1] == pytest.approx(4, abs=0.5)
    assert gaussian_error(16, second_order=True) < first[1] / 10
