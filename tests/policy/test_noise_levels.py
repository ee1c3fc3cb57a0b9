"""What training draws: ranges, shares, and exactly the levels that the sampler will visit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from policy.noise_levels import ContextRule, LevelMixture, from_first_step
from policy.scheduling_matrix import Staircase

RAMPS, BLOCKS, MAX_COMMITTED = (2, 4, 8), (1, 2, 4), 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def only(**kind: float) -> LevelMixture:
    """A mixture of the named kinds alone, without jitter."""
    weights = {"staircase": 0.0, "shared": 0.0, "prefix": 0.0, "independent": 0.0}
    return LevelMixture(**(weights | {"jitter": 0.0} | kind))  # type: ignore[arg-type]


def rounded(rows) -> list[tuple[float, ...]]:
    return [tuple(row) for row in np.round(np.asarray(rows, np.float64), 4).tolist()]


def test_default_mixture_is_in_range_and_differs_between_samples() -> None:
    levels = LevelMixture().draw(512, 16, generator=generator())
    assert levels.shape == (512, 16)
    assert levels.min() == 0
    assert levels.max() == 1
    assert len(set(rounded(levels))) > 450


def test_draws_are_a_function_of_the_generator() -> None:
    for draw in (
        lambda g: LevelMixture().draw(64, 16, generator=g),
        lambda g: ContextRule().draw(64, 8, 3, generator=g),
    ):
        assert torch.equal(draw(generator(3)), draw(generator(3)))
        assert not torch.equal(draw(generator(3)), draw(generator(4)))


def test_shared() -> None:
    levels = only(shared=1, pure_noise=0.25).draw(4000, 5, generator=generator())
    assert (levels == levels[:, :1]).all()
    assert (levels[:, 0] == 1).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert levels[levels < 1].mean().item() == pytest.approx(0.5, abs=0.02)


def test_prefix_is_clean_and_then_shared() -> None:
    levels = only(prefix=1, max_committed=2).draw(3000, 5, generator=generator())
    is_clean = levels == 0
    lengths = is_clean.sum(1)
    assert torch.bincount(lengths, minlength=6)[3:].sum() == 0
    np.testing.assert_allclose(torch.bincount(lengths)[:3] / 3000, [1 / 3] * 3, atol=0.04)
    for row, length in zip(levels, lengths.tolist(), strict=True):
        assert (row[:length] == 0).all()
        assert (row[length:] == row[-1]).all()


def test_independent_levels_are_uniform_and_uncorrelated() -> None:
    levels = only(independent=1).draw(4000, 3, generator=generator())
    counts = np.histogram(levels.numpy(), bins=10, range=(0, 1))[0]
    np.testing.assert_allclose(counts / counts.sum(), 0.1, atol=0.01)
    assert abs(np.corrcoef(levels.T.numpy())[np.triu_indices(3, 1)]).max() < 0.05


def test_weights_are_shares() -> None:
    levels = only(shared=3, independent=7).draw(4000, 5, generator=generator())
    is_shared = (levels == levels[:, :1]).all(1)
    assert is_shared.float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_jitter_moves_only_what_is_neither_clean_nor_noise() -> None:
    still = only(prefix=1).draw(500, 8, generator=generator())
    moved = only(prefix=1, jitter=0.05).draw(500, 8, generator=generator())
    inside = (still > 0) & (still < 1)
    assert torch.equal(moved[~inside], still[~inside])
    assert (moved - still)[inside].std().item() == pytest.approx(0.05, rel=0.1)


def staircases(*, offset: int) -> list[np.ndarray]:
    """Where the rolling sampler can stand, for every trained shape, in one fixed order."""
    return [
        Staircase(ramp=ramp, committed=c, block=block, offset=offset).levels(12, step=phase)
        for ramp in RAMPS
        for block in BLOCKS
        for c in range(MAX_COMMITTED + 1)
        for phase in range(block)
    ]


def test_staircase_draws_stand_where_the_sampler_stands_or_between_two_calls() -> None:
    mixture = only(
        staircase=1, ramps=RAMPS, blocks=BLOCKS, max_committed=MAX_COMMITTED, max_last_level=0.0
    )  # fmt: skip
    drawn = rounded(mixture.draw(20_000, 12, generator=generator()))
    before_calls = set(rounded(staircases(offset=1)))
    exact = [row for row in drawn if row in before_calls]
    assert set(exact) == before_calls  # every one of them is trained
    assert len(exact) / len(drawn) == pytest.approx(0.5, abs=0.03)
    low, high = (np.stack(staircases(offset=o)) for o in (0, 1))
    for row in np.array(drawn[:300]):
        assert ((row >= low - 1e-3) & (row <= high + 1e-3)).all(axis=1).any()


def test_last_level_of_the_staircase_reaches_up_to_its_bound() -> None:
    mixture = only(staircase=1, ramps=(4,), blocks=(1,), max_committed=0, max_last_level=0.7)
    first = mixture.draw(4000, 6, generator=generator())[:, 0]
    exact = first[first > 0.25]
    assert 0.25 < exact.min() < 0.27
    assert 0.68 < first.max() <= 0.7


def test_mixture_refuses_weights_without_meaning() -> None:
    with pytest.raises(ValueError, match="not all 0"):
        only()
    with pytest.raises(ValueError, match=">= 0"):
        only(shared=-1, independent=2)


QUIET = {
    "slight": 0.0, "random": 0.0, "missing": 0.0,
    "missing_all": 0.0, "action_slight": 0.0, "action_missing": 0.0,
}  # fmt: skip


def context(**shares: float) -> ContextRule:
    return ContextRule(**(QUIET | shares))  # type: ignore[arg-type]


def test_context_levels_are_in_range_and_often_clean() -> None:
    levels = ContextRule().draw(2000, 8, 3, generator=generator())
    assert levels.shape == (2000, 8, 3)
    assert levels.min() == 0
    assert levels.max() == 1
    assert (levels == 0).float().mean() > 0.5
    assert (context().draw(10, 8, 3, generator=generator()) == 0).all()


def test_slight_noise_is_one_small_level_a_source() -> None:
    levels = context(slight=1, slight_level=0.2).draw(2000, 6, 3, generator=generator())
    assert (levels[..., 2] == 0).all()  # the executed action has shares of its own
    assert torch.equal(levels, levels[:, :1].expand_as(levels))
    assert levels.max() <= 0.2
    assert levels[:, 0, 0].mean().item() == pytest.approx(0.1, abs=0.01)
    assert abs(np.corrcoef(levels[:, 0, 0], levels[:, 0, 1])[0, 1]) < 0.1


def test_random_levels_differ_from_step_to_step() -> None:
    levels = context(random=1).draw(2000, 6, 2, generator=generator())[..., 0]
    assert levels.mean().item() == pytest.approx(0.5, abs=0.02)
    assert abs(np.corrcoef(levels[:, 0], levels[:, 1])[0, 1]) < 0.1


def test_an_outage_is_one_stretch_of_pure_noise_of_geometric_length() -> None:
    levels = context(missing=1, mean_outage=5.0).draw(6000, 200, 2, generator=generator())[..., 0]
    assert set(levels.unique().tolist()) == {0.0, 1.0}
    rises = (levels.diff(dim=1) > 0).sum(1)
    falls = (levels.diff(dim=1) < 0).sum(1)
    assert rises.max() == 1
    assert falls.max() == 1
    is_whole = (levels[:, 0] == 0) & (levels[:, -1] == 0) & (rises == 1)
    lengths = levels[is_whole].sum(1)
    assert lengths.mean().item() == pytest.approx(5.0, abs=0.4)
    assert (lengths == 1).float().mean().item() == pytest.approx(0.2, abs=0.03)


def test_outages_with_gaps_are_geometric_and_stationary() -> None:
    rule = context(missing=1, mean_outage=5.0, mean_gap=15.0)
    levels = rule.draw(4000, 60, 3, generator=generator())
    assert set(levels.unique().tolist()) == {0.0, 1.0}
    is_out = levels[..., 0] == 1
    for step in (0, 30, -1):
        assert is_out[:, step].float().mean().item() == pytest.approx(0.25, abs=0.03)
    ends = (is_out[:, :-1] & ~is_out[:, 1:]).sum() / is_out[:, :-1].sum()
    begins = (~is_out[:, :-1] & is_out[:, 1:]).sum() / (~is_out[:, :-1]).sum()
    assert 1 / ends.item() == pytest.approx(5.0, rel=0.05)
    assert 1 / begins.item() == pytest.approx(15.0, rel=0.05)
    assert abs(np.corrcoef(levels[:, 30, 0], levels[:, 30, 1])[0, 1]) < 0.1


def test_partial_outages_keep_one_level_a_source() -> None:
    rule = context(missing=1, mean_outage=4.0, mean_gap=4.0, partial=0.4)
    levels = rule.draw(4000, 40, 2, generator=generator())[..., 0]
    highest = levels.amax(1, keepdim=True)
    assert ((levels == 0) | (levels == highest)).all()
    is_partial = highest < 1
    assert is_partial.float().mean().item() == pytest.approx(0.4, abs=0.03)
    assert highest[is_partial].mean().item() == pytest.approx(0.5, abs=0.03)


def test_lasting_outages_begin_within_the_sample_and_never_end() -> None:
    rule = context(missing=1, mean_outage=1.5, mean_gap=15.0, lasting=0.4)
    is_out = rule.draw(6000, 90, 2, generator=generator())[..., 0] == 1
    is_lasting = is_out[:, -30:].all(1)  # by chance 30 steps of outages: under 1 in 100,000
    assert is_lasting.float().mean().item() == pytest.approx(0.4, abs=0.03)
    assert not is_out[is_lasting, 0].any()
    assert (is_out[is_lasting].diff(dim=1).sum(1) == 1).all()
    first = is_out[is_lasting].int().argmax(1).float()
    assert first.mean().item() == pytest.approx(15.0, rel=0.1)


@pytest.mark.parametrize("gap", [1.5, 0.5, 0.0, -40.0])
def test_outages_shorter_than_steps_are_refused(gap: float) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        context(missing=1, mean_outage=1.2, mean_gap=gap)


@pytest.mark.parametrize("name", ["partial", "lasting"])
def test_a_share_of_outages_beyond_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 1.5.*from 0 to 1"):
        context(missing=1, mean_gap=40.0, **{name: 1.5})


def test_lasting_outages_without_gaps_are_refused() -> None:
    with pytest.raises(ValueError, match="needs mean_gap"):
        context(missing=1, lasting=0.5)


def test_shares_of_the_sources() -> None:
    rule = context(slight=0.3, random=0.2, action_missing=0.5)
    levels = rule.draw(6000, 40, 2, generator=generator())
    is_clean = (levels == 0).all(1)
    is_constant = (levels == levels[:, :1]).all(1) & ~is_clean
    assert is_clean[:, 0].float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert is_constant[:, 0].float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert set(levels[..., 1].unique().tolist()) == {0.0, 1.0}


def test_all_sources_may_be_out_together() -> None:
    levels = context(missing_all=1).draw(500, 8, 3, generator=generator())
    assert torch.equal(levels, levels[..., :1].expand_as(levels))
    assert 0.1 < levels.mean() < 0.9


def test_cameras_may_be_out_together_and_nothing_else() -> None:
    is_camera = torch.tensor([True, True, False, False])
    rule = context(missing_cameras=1)
    levels = rule.draw(500, 8, 4, generator=generator(), is_camera=is_camera)
    assert torch.equal(levels[..., 0], levels[..., 1])
    assert 0.1 < levels[..., 0].mean() < 0.9
    assert (levels[..., 2:] == 0).all()


def test_the_executed_action_may_have_random_levels() -> None:
    levels = context(action_random=1).draw(500, 8, 3, generator=generator())
    assert (levels[..., :2] == 0).all()
    assert levels[..., 2].mean().item() == pytest.approx(0.5, abs=0.03)


def test_one_level_for_all_observed_sources() -> None:
    rule = ContextRule(random=0.5, one_level=True)
    levels = rule.draw(500, 8, 4, generator=generator())
    assert torch.equal(levels[..., :1].expand(-1, -1, 3), levels[..., :3])
    assert not torch.equal(levels[..., 3], levels[..., 0])


def test_shares_above_one_are_refused() -> None:
    with pytest.raises(ValueError, match="exceed 1"):
        context(slight=0.6, missing=0.5).draw(2, 4, 2, generator=generator())


def test_padding_takes_what_was_drawn_last() -> None:
    levels = torch.arange(5.0).view(1, 5, 1).repeat(2, 1, 1)
    is_padded = torch.tensor([[True, True, False, False, False], [False] * 5])
    assert from_first_step(levels, is_padded)[..., 0].tolist() == [[3, 4, 0, 1, 2], [0, 1, 2, 3, 4]]
