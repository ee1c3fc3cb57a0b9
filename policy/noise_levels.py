"""The noise levels that training draws: a mixture for the plan, a rule per source for the context.

    staircase  |0 0 0 .1 .4 .4 .4 1|   as the rolling sampler visits it, at a random phase
    shared     |.7 .7 .7 .7 .7 .7 .7|   chunk sampling, cold start
    prefix     |0 0 0 .6 .6 .6 .6 .6|   a chunk behind actions already under way
    independent|.2 .9 .1 .5 .3 .8 .6|   the paper's own draw; any level vector

Every draw is per sample, never one vector for the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True, kw_only=True)
class LevelMixture:
    """Weights of the ways to draw a plan's levels, and their ranges.

    Attributes:
        staircase, shared, prefix, independent: weights; they need not sum to 1.
        ramps: ramp lengths R of the staircase, one drawn per sample.
        blocks: block lengths of the staircase, one drawn per sample.
        max_committed: clean slots at the front of staircase and prefix, drawn from 0..max.
        max_last_level: the staircase's last level is drawn from 1/R up to this.
        pure_noise: share of the shared and prefix draws whose level is exactly 1.
        jitter: standard deviation added to levels strictly between 0 and 1.
    """

    staircase: float = 0.35
    shared: float = 0.30
    prefix: float = 0.15
    independent: float = 0.20
    ramps: tuple[int, ...] = (4, 8, 16)
    blocks: tuple[int, ...] = (1, 1, 2, 4, 8)
    max_committed: int = 4
    max_last_level: float = 0.5
    pure_noise: float = 0.1
    jitter: float = 0.02

    def __post_init__(self) -> None:
        weights = (self.staircase, self.shared, self.prefix, self.independent)
        if min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(f"mixture weights must be >= 0 and not all 0, got {weights}")

    def draw(self, batch: int, horizon: int, *, generator: Generator) -> Tensor:
        """(batch, horizon) levels in [0, 1]."""
        draws = torch.stack(
            [
                self._staircase(batch, horizon, generator),
                self.draw_shared(batch, generator).expand(batch, horizon),
                self._prefix(batch, horizon, generator),
                torch.rand(batch, horizon, generator=generator),
            ],
            dim=1,
        )
        weights = torch.tensor([self.staircase, self.shared, self.prefix, self.independent])
        choice = torch.multinomial(weights, batch, replacement=True, generator=generator)
        levels = draws[torch.arange(batch), choice]
        noise = self.jitter * torch.randn(batch, horizon, generator=generator)
        inside = (levels > 0) & (levels < 1)
        return torch.where(inside, levels + noise, levels).clamp(0, 1)

    def draw_shared(self, batch: int, generator: Generator) -> Tensor:
        """(batch, 1) one level each, sometimes exactly 1."""
        level = torch.rand(batch, 1, generator=generator)
        is_pure = torch.rand(batch, 1, generator=generator) < self.pure_noise
        return torch.where(is_pure, torch.ones_like(level), level)

    def _committed(self, batch: int, generator: Generator) -> Tensor:
        return torch.randint(0, self.max_committed + 1, (batch, 1), generator=generator)

    def _prefix(self, batch: int, horizon: int, generator: Generator) -> Tensor:
        is_prefix = torch.arange(horizon) < self._committed(batch, generator)
        return torch.where(is_prefix, 0.0, self.draw_shared(batch, generator))

    def _staircase(self, batch: int, horizon: int, generator: Generator) -> Tensor:
        """The levels of `scheduling_matrix.Staircase` at a random phase, between two calls."""
        ramp = _pick(self.ramps, batch, generator)
        block = _pick(self.blocks, batch, generator)
        phase = (torch.rand(batch, 1, generator=generator) * block).floor()
        calls_left = ((torch.arange(horizon) + phase) / block).floor() * block - phase
        # No committed slots half of the time: that is how a simulator without delay samples.
        committed = self._committed(batch, generator) * torch.randint(
            0, 2, (batch, 1), generator=generator
        )
        # Half of the draws stand exactly where the sampler does (offset 1), half between two calls.
        between = torch.rand(batch, 1, generator=generator)
        is_exact = torch.rand(batch, 1, generator=generator) < 0.5
        calls_left = calls_left - committed + torch.where(is_exact, 1.0, between)
        low = 1 / ramp
        last = low + (self.max_last_level - low).clamp(min=0) * torch.rand(
            batch, 1, generator=generator
        )
        rising = last + (1 - last) * (calls_left - 1) / (ramp - 1).clamp(min=1)
        return torch.where(calls_left <= 0, 0.0, rising.clamp(0, 1))


def _pick(choices: tuple[int, ...], batch: int, generator: Generator) -> Tensor:
    """(batch, 1) float, one of `choices` each."""
    index = torch.randint(0, len(choices), (batch, 1), generator=generator)
    return torch.tensor(choices, dtype=torch.float32)[index]


@dataclass(frozen=True, kw_only=True)
class ContextRule:
    """How noisy each context token is in training, drawn per sample and source.

    A source is clean, slightly noisy, at a random level, or missing for contiguous stretches of
    steps: a covered camera stays covered for a while. Missing is pure noise, level 1, but for the
    share `partial` of samples.

    Attributes:
        slight: share of samples with a level in [0, slight_level], one per source.
        random: share with an independent uniform level per step.
        missing: share with outages.
        slight_level: upper end of "slightly noisy".
        mean_outage: mean length of an outage in control steps, geometric.
        mean_gap: mean length of the gaps between outages in control steps, geometric: a
            Gilbert-Elliott channel, stationary from the first step on. None is one outage per
            sample, whose start is uniform and may lie before the window.
        lasting: share of the samples with outages whose first outage never ends: the sample begins
            without, and what goes out stays out. Needs mean_gap.
        partial: share of the samples with outages in which what is out keeps something: one level
            per source, uniform in [0, 1], instead of 1.
        missing_all: share of samples in which every source is out in the same stretch.
        missing_cameras: share in which all cameras, and only they, are out in the same stretch.
        action_slight, action_random, action_missing: the same shares for the executed actions,
            which are noised more often so that the policy does not merely continue them (copycat).
        one_level: every observed source of a step has the level that the first one drew, as in the
            paper's robot experiment, where an observation has one level.
    """

    slight: float = 0.15
    random: float = 0.10
    missing: float = 0.15
    slight_level: float = 0.1
    mean_outage: float = 5.0
    mean_gap: float | None = None
    lasting: float = 0.0
    partial: float = 0.0
    missing_all: float = 0.02
    missing_cameras: float = 0.0
    action_slight: float = 0.2
    action_random: float = 0.0
    action_missing: float = 0.2
    one_level: bool = False

    def __post_init__(self) -> None:
        for name in ("lasting", "partial"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise ValueError(f"{name} is {share}, expected a share from 0 to 1")
        if self.mean_gap is None:
            if self.lasting > 0:
                raise ValueError(f"lasting is {self.lasting}, which needs mean_gap, say 40 steps")
            return
        shortest = min(self.mean_gap, self.mean_outage)
        if shortest < 1 or 1 / self.mean_gap + 1 / self.mean_outage > 1:
            raise ValueError(
                f"mean_gap {self.mean_gap} and mean_outage {self.mean_outage} are shorter than "
                "whole steps allow: both at least 1, and 1 / mean_gap + 1 / mean_outage at most 1"
            )

    def draw(
        self,
        batch: int,
        context: int,
        sources: int,
        *,
        generator: Generator,
        is_camera: Tensor | None = None,
    ) -> Tensor:
        """(batch, context, sources) levels; the last source is the executed action.

        `is_camera` (sources,) bool says which sources go out under `missing_cameras`.
        """
        shares = torch.tensor([[self.slight, self.random, self.missing]]).repeat(sources, 1)
        shares[-1] = torch.tensor([self.action_slight, self.action_random, self.action_missing])
        if (shares.sum(1) > 1).any():
            raise ValueError(f"slight + random + missing exceed 1: {shares.tolist()}")
        edges = shares.cumsum(1)  # (sources, 3)
        u = torch.rand(batch, 1, sources, generator=generator)
        slight = self.slight_level * torch.rand(batch, 1, sources, generator=generator)
        random = torch.rand(batch, context, sources, generator=generator)
        outage = self._outage(batch, context, sources, generator)
        levels = torch.zeros(batch, context, sources)
        levels = torch.where(u < edges[:, 2], outage, levels)
        levels = torch.where(u < edges[:, 1], random, levels)
        levels = torch.where(u < edges[:, 0], slight, levels)
        is_all = torch.rand(batch, 1, 1, generator=generator) < self.missing_all
        levels = torch.where(is_all, self._outage(batch, context, 1, generator), levels)
        if self.missing_cameras > 0 and is_camera is not None:
            is_blind = torch.rand(batch, 1, 1, generator=generator) < self.missing_cameras
            dark = self._outage(batch, context, 1, generator)
            levels = torch.where(is_blind & is_camera, dark, levels)
        if self.one_level:
            levels = torch.cat([levels[..., :1].expand(-1, -1, sources - 1), levels[..., -1:]], -1)
        return levels

    def _outage(self, batch: int, context: int, sources: int, generator: Generator) -> Tensor:
        """(batch, context, sources) the level inside outages, 0 elsewhere."""
        if self.mean_gap is None:
            is_out = self._one_stretch(batch, context, sources, generator)
        else:
            is_out = self._stretches(batch, context, sources, generator, mean_gap=self.mean_gap)
        if self.partial == 0:
            return is_out.float()
        level = torch.rand(batch, 1, sources, generator=generator)
        is_partial = torch.rand(batch, 1, sources, generator=generator) < self.partial
        return is_out * torch.where(is_partial, level, 1.0)

    def _one_stretch(self, batch: int, context: int, sources: int, generator: Generator) -> Tensor:
        """(batch, context, sources) true inside one stretch, which may reach the present."""
        start = torch.randint(1 - context, context, (batch, 1, sources), generator=generator)
        u = torch.rand(batch, 1, sources, generator=generator).clamp(1e-6, 1 - 1e-6)
        keep = torch.tensor(1 - 1 / max(self.mean_outage, 1.0001))
        length = 1 + (u.log() / keep.log()).floor()
        step = torch.arange(context).view(1, context, 1)
        return (step >= start) & (step < start + length)

    def _stretches(
        self, batch: int, context: int, sources: int, generator: Generator, *, mean_gap: float
    ) -> Tensor:
        """(batch, context, sources) true inside the outages of a two-state Markov chain.

        Each step may begin an outage or end one; what happened last decides.
        """
        u = torch.rand(batch, context, sources, generator=generator)
        begins, ends = u < 1 / mean_gap, u > 1 - 1 / self.mean_outage
        share = self.mean_outage / (self.mean_outage + mean_gap)
        is_lasting = torch.rand(batch, sources, generator=generator) < self.lasting
        begins[:, 0] = (torch.rand(batch, sources, generator=generator) < share) & ~is_lasting
        ends &= ~is_lasting.unsqueeze(1)
        ends[:, 0] = ~begins[:, 0]
        step = torch.arange(context).view(1, context, 1).expand(batch, -1, sources)
        last = torch.where(begins | ends, step, 0).cummax(1).values
        return begins.gather(1, last)


def from_first_step(levels: Tensor, is_padded: Tensor) -> Tensor:
    """Levels (B, W, S) moved along each window so that the first ones stand at its first step.

    `is_padded` (B, W) bool: the steps before the episode, which come first. What was drawn for the
    window's last steps ends up there. So an outage that lasts begins within the episode, not in the
    padding before it, where nothing would ever have been seen.
    """
    steps = is_padded.shape[1]
    row = (torch.arange(steps) - is_padded.sum(1, keepdim=True)) % steps
    return levels.gather(1, row.unsqueeze(-1).expand_as(levels))
