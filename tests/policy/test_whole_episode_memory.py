"""A memory of one pooled token a step, episodes that start empty, full sequences, and marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from policy.checkpoint import LoadedPolicy
from policy.construction import build
from policy.diffusion_forcing import DiffusionForcing
from policy.history import History, Mark
from policy.inference import EpisodeNoise
from policy.interface import Policy
from policy.noise_levels import ContextRule
from teleop_data.dataset import WindowDataset
from tests.contracts.policy_contract import PolicyContract
from tests.policy.tiny_models import (
    CHUNK,
    DENOISER,
    FULL_SCHEMA,
    HORIZON,
    ROLLING,
    SCHEMA,
    batch_of,
    described,
    shake,
    shaken_model,
    write_store,
)

POOLED = {"denoiser": DENOISER | {"pooled": True}, "method": {"starts_empty": True}}
FULL = {"denoiser": POOLED["denoiser"], "method": {"starts_empty": True, "full_sequence": True}}
LENGTH = 8


class TestPooledRolling(PolicyContract):
    def make_policy(self) -> Policy:
        return LoadedPolicy(shaken_model(FULL_SCHEMA, **POOLED), build(ROLLING))


class TestFullSequence(PolicyContract):
    def make_policy(self) -> Policy:
        return LoadedPolicy(shaken_model(**FULL), build(CHUNK))


def features_of(step: int, *, batch: int = 1) -> list[Tensor]:
    """The state at a step, the same in every episode."""
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(1, 1, 4, generator=generator).expand(batch, -1, -1)]


def executed_at(step: int) -> Tensor:
    return torch.randn(1, 2, generator=torch.Generator().manual_seed(100 + step))


def feed(
    past: History, step: int, *, level: float = 0.0, shift: float = 0.0, batch: int = 1
) -> None:
    (state,) = features_of(step, batch=batch)
    levels, executed = torch.full((batch, 1), level), executed_at(step).expand(batch, -1)
    past.append(step, features=[state + shift], levels=levels, executed=executed)


def estimate(model: DiffusionForcing, past: History, step: int) -> Tensor:
    plan = torch.randn(1, HORIZON, 2, generator=torch.Generator().manual_seed(99))
    steps = (step + torch.arange(HORIZON))[None]
    return model.clean_estimate(plan, torch.full((1, HORIZON), 0.5), steps, past.context)


def history(model: DiffusionForcing, **options: Any) -> History:
    return History(model, batch=1, draw_noise=EpisodeNoise([3]), **options)


@torch.inference_mode()
def test_cached_equals_uncached_from_the_first_step_on() -> None:
    model = shaken_model(**POOLED)
    cached, uncached = history(model), history(model, cached=False)
    for step in range(12):
        for past in (cached, uncached):
            feed(past, step, level=1.0 if 4 <= step < 6 else 0.0)
        torch.testing.assert_close(
            estimate(model, cached, step), estimate(model, uncached, step), atol=2e-5, rtol=1e-4
        )
        assert cached.context.steps.shape == (1, min(step + 1, DENOISER["memory"]))


RENEWED = {
    "denoiser": DENOISER | {"pooled": True, "memory": 5, "context_layers": 3},
    "method": {"starts_empty": True, "renew_at": 6, "shrinks_noise": True},
    "context": 6,
}


@torch.inference_mode()
def test_cached_equals_uncached_through_renewals() -> None:
    model = shaken_model(**RENEWED)
    cached, uncached = history(model), history(model, cached=False)
    for step in range(20):
        for past in (cached, uncached):
            feed(past, step, level=1.0 if step in (4, 5, 10) else 0.0)
        torch.testing.assert_close(
            estimate(model, cached, step), estimate(model, uncached, step), atol=2e-5, rtol=1e-4
        )
    # begun anew at 6, 9, 12, 15, 18, each time with the three steps before
    assert cached.context.steps.tolist() == [[15, 16, 17, 18, 19]]


@torch.inference_mode()
@pytest.mark.parametrize("cached", [True, False])
def test_a_renewed_memory_is_that_of_an_episode_which_began_there(cached: bool) -> None:
    model = shaken_model(**RENEWED)
    long, short = history(model, cached=cached), history(model, cached=cached)
    slides = shaken_model(**RENEWED | {"method": {"starts_empty": True, "shrinks_noise": True}})
    sliding = history(slides, cached=cached)
    for step in range(3):
        for past in (long, sliding):
            feed(past, step, shift=7.0)
    for step in range(3, 9):
        for past in (long, sliding):
            feed(past, step)
        if step == 3:
            short.append(3, features=features_of(3), levels=torch.zeros(1, 1), executed=None)
        else:
            feed(short, step)
        if step >= 6:
            expected = estimate(model, short, step)
            torch.testing.assert_close(estimate(model, long, step), expected)
            assert not torch.allclose(estimate(slides, sliding, step), expected, atol=1e-3)


@torch.inference_mode()
def test_an_episode_that_stays_is_renewed_as_if_it_had_been_alone() -> None:
    model = shaken_model(**RENEWED)
    alone = History(model, batch=1, draw_noise=EpisodeNoise([4]))
    noise = EpisodeNoise([3, 4])
    both = History(model, batch=2, draw_noise=noise)
    for step in range(8):
        feed(alone, step, level=0.5)
        if step == 4:
            noise.keep([1])
            both.keep([1])
        feed(both, step, level=0.5, batch=2 if step < 4 else 1)
    torch.testing.assert_close(estimate(model, both, 7), estimate(model, alone, 7))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"renew_at": 6}, "needs starts_empty"),
        ({"starts_empty": True, "full_sequence": True, "renew_at": 6}, "no full_sequence"),
        ({"starts_empty": True, "renew_at": 7}, "renew_at 7 .*2 to 6 control steps"),
        ({"starts_empty": True, "renew_at": 1}, "renew_at 1 .*2 to 6 control steps"),
    ],
)
def test_what_no_window_of_training_holds_is_refused(method: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shaken_model(**RENEWED | {"method": method})


@torch.inference_mode()
@pytest.mark.parametrize(("source", "level"), [(0, 1.0), (1, 1.0), (0, 0.4)])
def test_each_source_of_a_pooled_token_has_its_own_level(source: int, level: float) -> None:
    denoiser = shaken_model(**POOLED).denoiser
    tokens, steps = torch.zeros(1, 1, denoiser.width), torch.zeros(1, 1)
    clean = torch.zeros(1, 1, 2)
    noisy = clean.clone()
    noisy[..., source] = level
    other = noisy.flip(-1)
    read = [denoiser.read_context(tokens, k, steps)[0].layers[0][1] for k in (clean, noisy, other)]
    assert not torch.equal(read[0], read[1])
    assert not torch.equal(read[1], read[2])


@pytest.fixture
def dataset(tmp_path: Path) -> WindowDataset:
    store = write_store(tmp_path / "store.zarr", num_episodes=3, length=LENGTH)
    return WindowDataset(
        store, schema=SCHEMA, episodes=[0, 2], context=LENGTH + 3, horizon=HORIZON, only_last=True
    )  # fmt: skip


def trained_model(tmp_path: Path, **model: Any) -> DiffusionForcing:
    from teleop_data.replay_buffer import ReplayBuffer

    sizes = {"context": LENGTH + 3, "horizon": HORIZON}
    built = described(ReplayBuffer.open(tmp_path / "store.zarr"), **sizes, **model).build()
    shake(built.denoiser)
    return built


def test_a_window_an_episode(dataset: WindowDataset) -> None:
    assert len(dataset) == 2
    batch = dataset.batch([0, 1])
    assert batch["episode"].tolist() == [0, 2]
    assert batch["observation_is_padded"].sum(1).tolist() == [3, 3]


@pytest.mark.parametrize("model", [POOLED, {"method": {"starts_empty": True}}])
def test_nothing_is_seen_of_what_lies_before_the_episode(
    dataset: WindowDataset, tmp_path: Path, model: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the noise, unlike a memory that starts full of it."""
    built = trained_model(tmp_path, **model)
    seen = []
    original = built.denoiser.read_context

    def remember(tokens: Tensor, levels: Tensor, steps: Tensor) -> Any:
        first = original(tokens, levels, steps)
        changed = tokens.clone()
        changed[:, : 3 * built.denoiser.tokens_per_step] += 1.0
        seen.append((first[0], original(changed, levels, steps)[0]))
        return first

    monkeypatch.setattr(built.denoiser, "read_context", remember)
    built.loss(batch_of(dataset, [0, 1]), generator=torch.Generator().manual_seed(0))
    (context, other), own = seen[0], 3 * built.denoiser.tokens_per_step
    for (key, value), (key2, value2) in zip(context.layers, other.layers, strict=True):
        assert torch.equal(key[:, :, own:], key2[:, :, own:])
        assert torch.equal(value[:, :, own:], value2[:, :, own:])
        assert not torch.equal(value[:, :, :own], value2[:, :, :own])
    plan, levels = torch.zeros(2, HORIZON, 2), torch.full((2, HORIZON), 0.5)
    steps = torch.arange(5, 5 + HORIZON).expand(2, -1)
    assert torch.equal(
        built.denoiser(plan, levels, steps, context), built.denoiser(plan, levels, steps, other)
    )


def test_a_full_sequence_has_one_level_a_window(
    dataset: WindowDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained_model(tmp_path, denoiser=POOLED["denoiser"], method=FULL["method"])
    told = {}
    corrupt, forward = model.corrupt, model.denoiser.forward

    def see_context(features: list[Tensor], levels: Tensor, noise: list[Tensor]) -> list[Tensor]:
        told["context"] = levels
        return corrupt(features, levels, noise)

    def see_plan(plan: Tensor, levels: Tensor, *rest: Any) -> Tensor:
        told["plan"] = levels
        return forward(plan, levels, *rest)

    monkeypatch.setattr(model, "corrupt", see_context)
    monkeypatch.setattr(model.denoiser, "forward", see_plan)
    model.loss(batch_of(dataset, [0, 1]), generator=torch.Generator().manual_seed(1))
    inside = told["context"][:, 4:]  # the first action of an episode was never executed
    assert torch.equal(inside, told["plan"][:, :1, None].expand_as(inside))
    assert torch.equal(told["plan"], told["plan"][:, :1].expand_as(told["plan"]))
    assert told["plan"][0, 0] != told["plan"][1, 0]


@torch.inference_mode()
@pytest.mark.parametrize(
    ("mark", "sees_source", "is_told"),
    [("noise", False, True), ("flag", True, True), ("zeros", False, False), ("drop", False, True)],
)
def test_marks(mark: Mark, sees_source: bool, is_told: bool) -> None:
    model = shaken_model(**POOLED)

    def after(level: float, shift: float) -> Tensor:
        past = history(model, mark=mark)
        feed(past, 0)
        feed(past, 1, level=level, shift=shift)
        return estimate(model, past, 1)

    assert torch.equal(after(1.0, 0.0), after(1.0, 5.0)) is not sees_source
    zeroed = history(model)
    feed(zeroed, 0)
    zeroed.append(
        1, features=[torch.zeros(1, 1, 4)], levels=torch.zeros(1, 1), executed=executed_at(1)
    )
    if mark in ("zeros", "drop"):
        assert torch.equal(after(1.0, 0.0), estimate(model, zeroed, 1)) is not is_told


@torch.inference_mode()
@pytest.mark.parametrize("mark", ["noise", "flag", "zeros", "drop"])
def test_a_healthy_source_is_the_same_under_every_mark(mark: Mark) -> None:
    model = shaken_model(**POOLED)
    plain, marked = history(model), history(model, mark=mark)
    for step in range(3):
        feed(plain, step)
        feed(marked, step)
    assert torch.equal(estimate(model, plain, 2), estimate(model, marked, 2))


@torch.inference_mode()
@pytest.mark.parametrize("one_level", [False, True])
def test_one_level_for_all_is_the_highest(one_level: bool) -> None:
    """A model trained with one level a step is told one, whatever is known of each source."""
    rule = {"_target_": "policy.noise_levels.ContextRule", "one_level": one_level}
    method = POOLED["method"] | {"context_rule": rule}
    model = shaken_model(FULL_SCHEMA, denoiser=POOLED["denoiser"], method=method)

    def after(levels: list[float]) -> Tensor:
        past, generator = history(model), torch.Generator().manual_seed(0)
        features = [torch.randn(1, 1, size, generator=generator) for size in (16, 4)]
        past.append(0, features=features, levels=torch.tensor([levels]), executed=None)
        return estimate(model, past, 0)

    assert torch.equal(after([0.3, 0.8]), after([0.8, 0.8])) is one_level


def test_a_full_sequence_refuses_marks() -> None:
    model = shaken_model(**FULL)
    with pytest.raises(ValueError, match="mark must be noise, got zeros"):
        LoadedPolicy(model, build(CHUNK), mark="zeros")


def test_guesses_are_of_actions_that_many_steps_ahead(
    dataset: WindowDataset, tmp_path: Path
) -> None:
    denoiser = POOLED["denoiser"] | {"guessed_actions": 2}
    method = {"starts_empty": True, "guess_stride": 3}
    model = trained_model(tmp_path, denoiser=denoiser, method=method)
    batch = batch_of(dataset, [0, 1])
    actions = model.action_normalizer.normalize(batch["action"])
    ticks = torch.arange(model.context)
    last = actions.shape[1] - 1
    told = [actions[:, (ticks + ahead).clamp(max=last)] for ahead in (3, 6)]
    perfect = torch.cat(told, dim=-1)  # action j + 1 is executed at tick j: 3 ahead of tick j - 1

    class Perfect(torch.nn.Module):
        def forward(self, summary: Tensor) -> Tensor:
            return perfect

    def loss_of(guess: torch.nn.Module, weight: float) -> Tensor:
        model.denoiser.guess, model.guess_weight = guess, weight
        with torch.no_grad():
            return model.loss(batch, generator=torch.Generator().manual_seed(0)).loss

    trained = model.denoiser.guess
    assert isinstance(trained, torch.nn.Linear)
    assert torch.equal(loss_of(Perfect(), 1.0), loss_of(Perfect(), 0.0))
    assert loss_of(trained, 1.0) > loss_of(trained, 0.0)


def test_what_is_recalled_is_the_clean_sources_as_far_as_they_are_unseen(
    dataset: WindowDataset, tmp_path: Path
) -> None:
    denoiser = POOLED["denoiser"] | {"recalls": True}
    model = trained_model(tmp_path, denoiser=denoiser, method={"starts_empty": True})
    batch = batch_of(dataset, [0, 1])
    clean = torch.cat(model.encode(batch), dim=-1)

    def loss_of(shift: float, *, level: float, weight: float = 1.0) -> float:
        class Shifted(torch.nn.Module):
            def forward(self, summary: Tensor) -> Tensor:
                return clean + shift

        model.denoiser.recall, model.recall_weight = Shifted(), weight
        shares = {"slight": 0.0, "random": level, "missing": 0.0, "missing_all": 0.0}
        model.context_rule = ContextRule(**shares, action_slight=0.0, action_missing=0.0)
        with torch.no_grad():
            return float(model.loss(batch, generator=torch.Generator().manual_seed(0)).loss)

    without = loss_of(0.5, level=1.0, weight=0.0)
    assert loss_of(0.0, level=1.0) == pytest.approx(without)
    assert loss_of(0.5, level=1.0) == pytest.approx(without + 0.25)
    assert loss_of(0.5, level=1.0, weight=3.0) == pytest.approx(without + 0.75)
    seen = loss_of(0.5, level=0.0, weight=0.0)
    assert loss_of(0.5, level=0.0) == pytest.approx(seen)  # nothing to recall where all is seen


def test_keyposes_are_asked_of_every_token(dataset: WindowDataset, tmp_path: Path) -> None:
    denoiser = POOLED["denoiser"] | {"keyposes": 1}
    model = trained_model(tmp_path, denoiser=denoiser, method={"starts_empty": True})
    batch = batch_of(dataset, [0, 1])
    rows = torch.arange(batch["action"].shape[1])
    batch["action"][:, :, -1] = torch.where(rows < LENGTH, -9.0, 9.0)

    def loss_of(weight: float) -> Tensor:
        model.keypose_weight = weight
        return model.loss(batch, generator=torch.Generator().manual_seed(0)).loss

    asked = loss_of(1.0) - loss_of(0.0)
    assert asked > 0
    assert (loss_of(2.0) - loss_of(0.0)).item() == pytest.approx(2 * asked.item(), rel=1e-3)
    asked.backward()
    for layer in (model.denoiser.keypose, model.denoiser.inputs[0]):
        assert isinstance(layer, torch.nn.Linear)
        assert layer.weight.grad is not None
        assert layer.weight.grad.any()


@pytest.mark.parametrize("extra", [{"guessed_actions": 2}, {"recalls": True}, {"keyposes": 1}])
def test_what_tokens_are_asked_needs_one_a_step(extra: dict) -> None:
    with pytest.raises(ValueError, match="guessed_actions, recalls and keyposes need pooled"):
        shaken_model(denoiser=DENOISER | extra)
