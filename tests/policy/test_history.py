"""The cache of an episode's past against encoding everything again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policy.diffusion_forcing import DiffusionForcing
from policy.history import History
from policy.inference import EpisodeNoise
from tests.policy.tiny_models import DENOISER, HORIZON, shaken_model

SEEDS = [11, 12]


@pytest.fixture
def model() -> DiffusionForcing:
    return shaken_model()


def history(model: DiffusionForcing, *, cached: bool = True, seeds: list[int] = SEEDS) -> History:
    return History(model, batch=len(seeds), draw_noise=EpisodeNoise(seeds), cached=cached)


def feed(past: History, step: int, *, level: float = 0.0, rows: int = 2) -> None:
    """One control step whose content is a function of the step."""
    generator = torch.Generator().manual_seed(step)
    state = torch.randn(2, 1, 4, generator=generator)[:rows]
    executed = torch.randn(2, 2, generator=generator)[:rows]
    past.append(step, features=[state], levels=torch.full((rows, 1), level), executed=executed)


def estimate(model: DiffusionForcing, past: History, step: int, *, rows: int = 2) -> Tensor:
    """What a fixed noisy plan made now is taken for."""
    generator = torch.Generator().manual_seed(99)
    plan = torch.randn(1, HORIZON, 2, generator=generator).expand(rows, -1, -1)
    steps = (step + torch.arange(HORIZON)).expand(rows, -1)
    return model.clean_estimate(plan, torch.full((rows, HORIZON), 0.5), steps, past.context)


def level_at(step: int) -> float:
    return 1.0 if 8 <= step < 13 else 0.3 if step % 7 == 0 else 0.0


@torch.inference_mode()
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("memory", [1, 3, 5])
def test_cached_equals_uncached(memory: int, layers: int) -> None:
    """40 steps, far past the ring's length, with an outage, slight noise and unknown steps."""
    model = shaken_model(denoiser=DENOISER | {"memory": memory, "context_layers": layers})
    cached, uncached = history(model), history(model, cached=False)
    for step in range(40):
        for past in (cached, uncached):
            if step in (17, 18, 19, 20, 30):
                past.append_unknown(step)
            else:
                feed(past, step, level=level_at(step))
        torch.testing.assert_close(
            estimate(model, cached, step), estimate(model, uncached, step), atol=2e-5, rtol=1e-4
        )
    assert cached.context.steps.shape == (1, memory * 2)  # state and executed action


@torch.inference_mode()
def test_the_past_matters_and_an_outage_hides_it(model: DiffusionForcing) -> None:
    def after(first: int, level: float) -> Tensor:
        past = history(model)
        past.append_unknown(0)
        generator = torch.Generator().manual_seed(first)
        state = torch.randn(2, 1, 4, generator=generator)
        past.append(1, features=[state], levels=torch.full((2, 1), level), executed=None)
        feed(past, 2)
        return estimate(model, past, 2)

    assert torch.equal(after(1, 1.0), after(2, 1.0))
    assert not torch.equal(after(1, 0.9), after(2, 0.9))


@torch.inference_mode()
def test_an_unknown_action_is_pure_noise_not_zero(model: DiffusionForcing) -> None:
    def after(seed: int, executed: Tensor | None) -> Tensor:
        past = History(model, batch=1, draw_noise=EpisodeNoise([seed]))
        state = torch.zeros(1, 1, 4)
        for step in range(5):  # twice the memory: of the noise before the reset nothing is seen
            past.append(step, features=[state], levels=torch.zeros(1, 1), executed=executed)
        return estimate(model, past, 4, rows=1)

    zero = torch.zeros(1, 2)
    torch.testing.assert_close(after(0, zero), after(1, zero))
    assert (after(0, None) - after(1, None)).abs().max() > 1e-3


@torch.inference_mode()
def test_every_episode_draws_its_own_noise(model: DiffusionForcing) -> None:
    both, second = history(model), history(model, seeds=SEEDS[1:])
    for past in (both, second):
        past.append_unknown(0)
    together, alone = estimate(model, both, 0), estimate(model, second, 0, rows=1)
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3


@torch.inference_mode()
@pytest.mark.parametrize("cached", [True, False])
def test_episodes_that_are_over_leave(model: DiffusionForcing, cached: bool) -> None:
    noise = EpisodeNoise(SEEDS)
    both = history(model, cached=cached)
    fewer = History(model, batch=2, draw_noise=noise, cached=cached)
    for step in range(3):
        for past in (both, fewer):
            feed(past, step)
    noise.keep([0])
    fewer.keep([0])
    for step in range(3, 8):
        feed(both, step, level=level_at(step))
        feed(fewer, step, level=level_at(step), rows=1)
        torch.testing.assert_close(
            estimate(model, fewer, step, rows=1),
            estimate(model, both, step)[:1],
            atol=1e-5,
            rtol=1e-4,
        )


def test_nothing_to_read_before_the_first_observation() -> None:
    model = shaken_model(denoiser=DENOISER | {"memory": 1})
    with pytest.raises(RuntimeError, match="only after its first observation"):
        history(model).context  # noqa: B018
