"""The denoiser: who sees whom, to the bit, and what it says at the start."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policy.attention import Block, LevelEmbedding
from policy.denoiser import Context, Denoiser
from tests.policy.tiny_models import shake

SIZES, TICKS, MEMORY, HORIZON = [4, 3, 2], 6, 3, 5


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    model = Denoiser(
        source_sizes=SIZES, action_size=2, memory=MEMORY,
        width=32, heads=2, context_layers=1, plan_layers=2, level_size=16,
    )  # fmt: skip
    shake(model)
    return model.eval()


def sources() -> list[Tensor]:
    return [torch.randn(2, TICKS, size, generator=generator(size)) for size in SIZES]


def read(
    denoiser: Denoiser, features: list[Tensor], levels: Tensor | None = None, *, first_step: int = 0
) -> Context:
    tokens = denoiser.context_tokens(features)
    if levels is None:
        levels = torch.zeros(2, TICKS, len(SIZES))
    steps = first_step + torch.arange(TICKS)[None]
    return denoiser.read_context(tokens, levels, steps)[0]


def plan_at(first: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """A noisy plan for each of two samples, its levels and its steps."""
    plan = torch.randn(2, HORIZON, 2, generator=generator(1))
    levels = torch.rand(2, HORIZON, generator=generator(2))
    return plan, levels, torch.tensor(first)[:, None] + torch.arange(HORIZON)


def of_ticks(context: Context, ticks: slice) -> list[Tensor]:
    """Keys and values of some ticks, of every plan layer."""
    tokens = slice(ticks.start * len(SIZES), ticks.stop * len(SIZES))
    return [part[:, :, tokens] for layer in context.layers for part in layer]


@torch.inference_mode()
@pytest.mark.parametrize("source", range(len(SIZES)))
def test_a_later_observation_changes_no_earlier_context(denoiser: Denoiser, source: int) -> None:
    features = sources()
    before = read(denoiser, features)
    features[source] = features[source].clone()
    features[source][:, 4] += 1
    after = read(denoiser, features)
    for old, new in zip(of_ticks(before, slice(0, 4)), of_ticks(after, slice(0, 4)), strict=True):
        assert torch.equal(old, new)
    for old, new in zip(of_ticks(before, slice(4, 5)), of_ticks(after, slice(4, 5)), strict=True):
        assert ((old - new).abs().amax(dim=(0, 1, 3)) > 0).all()  # every source of tick 4 sees it


@torch.inference_mode()
def test_a_later_level_changes_no_earlier_context(denoiser: Denoiser) -> None:
    levels = torch.zeros(2, TICKS, len(SIZES))
    before = read(denoiser, sources(), levels)
    levels[:, 4, 0] = 0.5
    after = read(denoiser, sources(), levels)
    for old, new in zip(of_ticks(before, slice(0, 4)), of_ticks(after, slice(0, 4)), strict=True):
        assert torch.equal(old, new)
    assert not torch.equal(of_ticks(before, slice(4, 5))[0], of_ticks(after, slice(4, 5))[0])


@torch.inference_mode()
def test_memory_is_as_long_as_it_says(denoiser: Denoiser) -> None:
    features = sources()
    before = read(denoiser, features)
    features[0] = features[0].clone()
    features[0][:, 1] += 1
    after = read(denoiser, features)
    is_changed = [
        any(
            not torch.equal(a, b)
            for a, b in zip(
                of_ticks(before, slice(t, t + 1)), of_ticks(after, slice(t, t + 1)), strict=True
            )
        )
        for t in range(TICKS)
    ]
    assert is_changed == [False, True, True, True, False, False]  # one layer, three ticks


@torch.inference_mode()
def test_a_plan_sees_the_past_of_its_own_first_step_only(denoiser: Denoiser) -> None:
    """Two plans in one batch, from ticks 2 and 4; the memory is three ticks."""
    arguments = plan_at([2, 4])
    before = denoiser(*arguments, read(denoiser, sources()))
    for tick, sees in [(0, [True, False]), (1, [True, False]), (2, [True, True]),
                       (3, [False, True]), (4, [False, True]), (5, [False, False])]:  # fmt: skip
        context = read(denoiser, sources())
        for keys, values in context.layers:
            tokens = slice(tick * len(SIZES), (tick + 1) * len(SIZES))
            keys[:, :, tokens] += 1
            values[:, :, tokens] += 1
        after = denoiser(*arguments, context)
        for row in range(2):
            assert torch.equal(after[row], before[row]) != sees[row], (tick, row)


@torch.inference_mode()
@pytest.mark.parametrize("pooled", [False, True])
def test_plans_side_by_side_are_each_what_they_are_alone(pooled: bool) -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(
        source_sizes=SIZES, action_size=2, memory=MEMORY, pooled=pooled,
        width=32, heads=2, context_layers=1, plan_layers=2, level_size=16,
    )  # fmt: skip
    shake(denoiser)
    context = read(denoiser.eval(), sources())
    alone = [plan_at(first) for first in ([3, 4], [5, 2], [5, 5])]
    plans, levels, steps = (
        torch.stack(parts, dim=1).flatten(0, 1)  # the plans of a window one after the other
        for parts in zip(*((plan + i, k, t) for i, (plan, k, t) in enumerate(alone)), strict=True)
    )
    together = denoiser(plans, levels, steps, context).unflatten(0, (2, len(alone)))
    for i, (plan, k, t) in enumerate(alone):
        expected = denoiser(plan + i, k, t, context)
        torch.testing.assert_close(together[:, i], expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_plan_tokens_see_each_other_both_ways_and_leave_the_context_alone(
    denoiser: Denoiser,
) -> None:
    context = read(denoiser, sources())
    kept = [part.clone() for part in of_ticks(context, slice(0, TICKS))]
    plan, levels, steps = plan_at([5, 5])
    before = denoiser(plan, levels, steps, context)
    for slot in (0, HORIZON - 1):
        changed = plan.clone()
        changed[:, slot] += 1
        after = denoiser(changed, levels, steps, context)
        assert ((after - before).abs().amax(dim=(0, 2)) > 0).all()
    for old, new in zip(kept, of_ticks(context, slice(0, TICKS)), strict=True):
        assert torch.equal(old, new)


@torch.inference_mode()
def test_a_tokens_level_enters(denoiser: Denoiser) -> None:
    context = read(denoiser, sources())
    plan, levels, steps = plan_at([5, 5])
    before = denoiser(plan, levels, steps, context)
    levels[:, 2] = 1 - levels[:, 2]
    assert (denoiser(plan, levels, steps, context) - before).abs().max() > 1e-3


@torch.inference_mode()
@pytest.mark.parametrize("shift", [1, 37, 250])
def test_only_differences_of_steps_count(denoiser: Denoiser, shift: int) -> None:
    plan, levels, steps = plan_at([5, 5])
    before = denoiser(plan, levels, steps, read(denoiser, sources()))
    moved = read(denoiser, sources(), first_step=shift)
    after = denoiser(plan, levels, steps + shift, moved)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_differences_of_steps_do_count(denoiser: Denoiser) -> None:
    context = read(denoiser, sources())
    plan, levels, steps = plan_at([5, 5])
    before = denoiser(plan, levels, steps, context)
    stretched = steps.clone()
    stretched[:, 1:] += 1
    assert (denoiser(plan, levels, stretched, context) - before).abs().max() > 1e-3


def test_a_fresh_block_changes_nothing() -> None:
    torch.manual_seed(0)
    block = Block(width=32, heads=2, level_size=16, expansion=4)
    x = torch.randn(1, 7, 32)
    level = LevelEmbedding(16)(torch.rand(1, 7))
    same, (key, value) = block(x, level, torch.zeros(1, 7, 8))
    assert torch.equal(same, x)
    assert key.abs().max() > 0.1
    assert value.shape == (1, 2, 7, 16)


@torch.inference_mode()
def test_a_fresh_denoiser_says_zero() -> None:
    fresh = Denoiser(source_sizes=SIZES, action_size=2, memory=MEMORY, width=32, heads=2)
    assert (fresh(*plan_at([5, 5]), read(fresh, sources())) == 0).all()


def test_every_parameter_is_used(denoiser: Denoiser) -> None:
    levels = torch.rand(2, TICKS, len(SIZES), generator=generator(3))
    output = denoiser(*plan_at([4, 5]), read(denoiser, sources(), levels))
    output.square().sum().backward()
    unused = [name for name, p in denoiser.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []


@torch.inference_mode()
def test_levels_are_told_apart() -> None:
    torch.manual_seed(0)
    embedding = LevelEmbedding(32)
    levels = torch.tensor([0.0, 0.001, 0.02, 0.5, 0.98, 1.0])
    distances = torch.cdist(embedding(levels), embedding(levels))
    assert (distances + torch.eye(6) > 1e-3).all()


def test_width_must_fit_the_heads() -> None:
    with pytest.raises(ValueError, match="width 36 must be a multiple of twice the heads, 2 x 4"):
        Denoiser(source_sizes=[2], action_size=2, memory=2, width=36, heads=4)
