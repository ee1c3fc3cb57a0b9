"""The loss: what enters it, what does not, and that it trains what inference asks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from policy.diffusion_forcing import DiffusionForcing
from policy.history import History
from policy.inference import EpisodeNoise
from policy.noise_levels import ContextRule, LevelMixture
from teleop_data.replay_buffer import ReplayBuffer
from tests.policy.tiny_models import (
    CONTEXT,
    HORIZON,
    MEMORY,
    batch_of,
    described,
    shake,
    windows,
    write_store,
)

CLEAN_CONTEXT = ContextRule(
    slight=0, random=0, missing=0, missing_all=0, action_slight=0, action_missing=0
)
LENGTH = 20


@dataclass(frozen=True)
class Fixed:
    """Draws one level for every plan token, or for every context token."""

    level: float

    def draw(self, *shape: int, generator: Generator, is_camera: Tensor | None = None) -> Tensor:
        return torch.full(shape, self.level)


@dataclass(frozen=True)
class OutAfterTheFirstStep:
    """Draws an outage of everything that begins with the second step and lasts."""

    def draw(self, *shape: int, generator: Generator, is_camera: Tensor | None = None) -> Tensor:
        levels = torch.ones(shape)
        levels[:, 0] = 0
        return levels


@pytest.fixture
def dataset(tmp_path: Path):
    return windows(write_store(tmp_path / "store.zarr", num_episodes=2, length=LENGTH), [0, 1])


@pytest.fixture
def model(tmp_path: Path, dataset) -> DiffusionForcing:
    built = described(ReplayBuffer.open(tmp_path / "store.zarr")).build()
    shake(built.denoiser)
    return built


def loss(model: DiffusionForcing, batch: dict[str, Tensor], seed: int = 0):
    with torch.no_grad():
        return model.loss(batch, generator=torch.Generator().manual_seed(seed))


def capture(model: DiffusionForcing, monkeypatch) -> list[tuple]:
    """The arguments of every network call from now on."""
    calls, original = [], model.clean_estimate

    def clean_estimate(*arguments):
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(model, "clean_estimate", clean_estimate)
    return calls


def test_loss_is_a_function_of_the_generator(model, dataset) -> None:
    batch = batch_of(dataset, [3, 8, 25])
    assert torch.equal(loss(model, batch).loss, loss(model, batch).loss)
    assert loss(model, batch).loss != loss(model, batch, seed=1).loss


def test_pure_noise_keeps_nothing(model) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(2, 4, size, generator=generator) for size in (4, 2)]
    levels = torch.tensor([1.0, 0.7]).expand(2, 4, 2)
    clean = [torch.randn(2, 4, size, generator=generator) for size in (4, 2)]
    other = [x + 100 for x in clean]
    first, second = model.corrupt(clean, levels, noise), model.corrupt(other, levels, noise)
    assert torch.equal(first[0], noise[0])
    assert torch.equal(second[0], noise[0])
    assert not torch.equal(first[1], second[1])


def test_shrunk_noise_leaves_the_token_to_the_other_sources(model) -> None:
    """Pure noise becomes nothing, a clean source stays, and one between is still noisy."""
    generator = torch.Generator().manual_seed(0)
    noise, clean = (
        [torch.randn(2, 4, size, generator=generator) for size in (4, 3, 2)] for _ in range(2)
    )
    levels = torch.tensor([1.0, 0.0, 0.7]).expand(2, 4, 3)
    model.shrinks_noise = True
    dark, clear, between = model.corrupt(clean, levels, noise)
    assert not dark.any()
    assert torch.equal(clear, clean[1])
    noisy = 0.3 * clean[2] + 0.7 * noise[2]
    assert torch.allclose(between, noisy * 0.3 / (0.3**2 + 0.7**2))


def test_a_missing_source_tells_the_loss_nothing(model, dataset) -> None:
    model.context_rule = Fixed(1.0)
    batch = batch_of(dataset, [8, 25])
    before = loss(model, batch).loss
    batch["state"] = batch["state"] + 3
    assert torch.equal(loss(model, batch).loss, before)
    model.context_rule = Fixed(0.9)
    assert not torch.equal(loss(model, batch).loss, before)


def test_what_lies_before_the_episode_tells_the_loss_nothing(model, dataset) -> None:
    model.context_rule = CLEAN_CONTEXT
    batch = batch_of(dataset, [1])
    assert batch["observation_is_padded"].tolist() == [[True, True, False, False]]
    before = loss(model, batch).loss
    batch["state"][:, :2] += 3
    assert torch.equal(loss(model, batch).loss, before)
    batch["state"][:, 2] += 3
    assert not torch.equal(loss(model, batch).loss, before)


def test_outages_begin_within_the_episode_and_not_before_it(model, dataset) -> None:
    model.context_rule = OutAfterTheFirstStep()
    batch = batch_of(dataset, [1])
    assert batch["observation_is_padded"].tolist() == [[True, True, False, False]]
    before = loss(model, batch).loss
    batch["state"][:, 3] += 3
    assert torch.equal(loss(model, batch).loss, before)
    batch["state"][:, 2] += 3
    assert not torch.equal(loss(model, batch).loss, before)


def test_targets_are_the_actions_from_the_plans_own_tick(model, dataset, monkeypatch) -> None:
    model.level_mixture, model.plans_per_window = Fixed(0.0), 2
    monkeypatch.setattr(model, "_plan_starts", lambda b, m, g: torch.tensor([[CONTEXT - 1, 1]] * b))
    calls, batch = capture(model, monkeypatch), batch_of(dataset, [8, 9])
    loss(model, batch)
    plan, levels, steps, _ = calls[0]
    actions = model.action_normalizer.normalize(batch["action"])
    for row, tick in enumerate([CONTEXT - 1, 1, CONTEXT - 1, 1]):
        expected = actions[row // 2, tick + 1 : tick + 1 + HORIZON]
        assert torch.equal(plan[row], expected)
        assert steps[row].tolist() == list(range(tick, tick + HORIZON))
    assert (levels == 0).all()
    # The newest tick's first target is the action recorded at that very step of the episode.
    at_8 = batch_of(dataset, [8 + 1])["action"][0, CONTEXT]
    assert torch.equal(batch["action"][1, CONTEXT], at_8)


def test_an_earlier_plan_ignores_later_observations(model, dataset, monkeypatch) -> None:
    model.plans_per_window = 2
    monkeypatch.setattr(model, "_plan_starts", lambda b, m, g: torch.tensor([[CONTEXT - 1, 1]] * b))
    batch = batch_of(dataset, [8, 9])
    before = loss(model, batch).error.view(2, 2, HORIZON)
    batch["state"][:, 2:] += 1
    after = loss(model, batch).error.view(2, 2, HORIZON)
    assert torch.equal(after[:, 1], before[:, 1])
    assert not torch.equal(after[:, 0], before[:, 0])
    batch["state"][:, 1] += 1
    assert not torch.equal(loss(model, batch).error.view(2, 2, HORIZON)[:, 1], before[:, 1])


def test_newest_plan_first_and_the_others_from_any_tick(model) -> None:
    starts = model._plan_starts(500, 3, torch.Generator().manual_seed(0))
    assert (starts[:, 0] == CONTEXT - 1).all()
    assert set(starts[:, 1:].flatten().tolist()) == set(range(CONTEXT))


def test_what_counts(model, dataset, monkeypatch) -> None:
    """Plans that start before the episode do not, clean slots do not, slots after its end do."""
    model.plans_per_window = 2
    monkeypatch.setattr(model, "_plan_starts", lambda b, m, g: torch.tensor([[CONTEXT - 1, 1]] * b))
    model.level_mixture = Fixed(0.5)
    first, last = loss(model, batch_of(dataset, [0])), loss(model, batch_of(dataset, [LENGTH - 1]))
    assert first.counted.view(2, HORIZON).all(1).tolist() == [True, False]
    assert not first.counted.view(2, HORIZON)[1].any()
    assert last.counted.all()
    model.level_mixture = Fixed(0.0)
    clean = loss(model, batch_of(dataset, [8]))
    assert not clean.counted.any()
    assert clean.loss == 0


def test_loss_is_the_weighted_mean_of_what_counts(model, dataset) -> None:
    model.level_mixture = Fixed(0.25)
    terms = loss(model, batch_of(dataset, [0, 8]))
    expected = 16 * terms.error[terms.counted].mean()
    torch.testing.assert_close(terms.loss, expected)


def test_plan_drift_is_a_line_on_half_of_the_plans(model, dataset, monkeypatch) -> None:
    model.level_mixture, model.plan_drift = Fixed(0.0), 0.3
    calls, batch = capture(model, monkeypatch), batch_of(dataset, [8] * 200)
    loss(model, batch)
    target = model.action_normalizer.normalize(batch["action"])[:, CONTEXT : CONTEXT + HORIZON]
    drift = calls[0][0] - target
    is_drifted = (drift != 0).flatten(1).any(1)
    assert is_drifted.float().mean().item() == pytest.approx(0.5, abs=0.12)
    torch.testing.assert_close(drift.diff(n=2, dim=1), torch.zeros(200, HORIZON - 2, 2))
    assert drift[is_drifted][:, 0].std().item() == pytest.approx(0.3, rel=0.2)


def test_training_asks_what_inference_asks(model, dataset, monkeypatch) -> None:
    """A clean window read at once is the same context as its steps read one after the other.

    One context layer, so a plan looks back over 2 MEMORY - 1 ticks: the window must hold them.
    """
    tick, ticks = 9, 2 * MEMORY - 1
    model.context_rule, model.level_mixture, model.context = CLEAN_CONTEXT, Fixed(0.5), ticks
    dataset.context = ticks
    calls, batch = capture(model, monkeypatch), batch_of(dataset, [tick])
    loss(model, batch)
    plan, levels, steps, trained = calls[0]
    expected = model.clean_estimate(plan, levels, steps, trained)

    history = History(model, batch=1, draw_noise=EpisodeNoise([3]))
    for step in range(tick + 1):
        window = batch_of(dataset, [step])
        executed = model.action_normalizer.normalize(window["action"])[:, ticks - 1]
        history.append(
            step,
            features=model.encode({"state": window["state"][:, -1:]}),
            levels=torch.zeros(1, 1),
            executed=executed if step else None,
        )
    absolute = steps - steps[0, 0] + tick
    estimate = model.clean_estimate(plan, levels, absolute, history.context)
    torch.testing.assert_close(estimate, expected, atol=1e-5, rtol=1e-4)


def test_default_mixture_and_weights_are_the_documented_ones(model) -> None:
    assert model.level_mixture == LevelMixture()
    assert model.context_rule == ContextRule()
    assert (model.loss_weight.cap, model.loss_weight.floor) == (25.0, 1.0)
