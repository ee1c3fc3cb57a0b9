"""What an episode has seen so far, as the denoiser reads it: keys and values of the last W steps.

    history  |? ? ?|o a|o a|o a| ...   each step's tokens are encoded once, at their noise levels
              unknown before the reset: level 1

A model with `renew_at` never lets it grow longer than that: the newest half is then encoded anew,
from what arrived, as if the episode had begun there.

    renewed  |o a|o a|o a|o a|   ->   |o ?|o a|   ->   |o ?|o a|o a|o a|   ->   ...

B episodes in lock-step, S sources, W the denoiser's memory in control steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from policy.denoiser import Context
from policy.diffusion_forcing import DiffusionForcing

Mark = Literal["noise", "flag", "zeros", "drop"]
"""How a source at a level above 0 is presented to the network.

noise   really noised to its level, as in training: the method
flag    as it arrived, with its level told (to compare with)
zeros   zeros for features, its level not told (to compare with)
drop    zeros for features, its level told (to compare with)
"""
DrawNoise = Callable[[tuple[int, ...]], Tensor]  # (shape of one episode) -> (B, *shape)
_Step = tuple[int, list[Tensor], Tensor]  # its number, sources (B, 1, F_s), levels (B, 1, S)


class History:
    """The context of B episodes. Keeps the caches if `cached`, else re-encodes every step's tokens.

    Not cached is slower and grows with the episode; it exists to check the cache against.
    """

    def __init__(
        self,
        model: DiffusionForcing,
        *,
        batch: int,
        draw_noise: DrawNoise,
        cached: bool = True,
        mark: Mark = "noise",
    ) -> None:
        """Of `batch` episodes. See `Mark` for what becomes of a source at a level above 0."""
        self._model, self._batch, self._draw = model, batch, draw_noise
        self._cached, self._mark = cached and not model.full_sequence, mark
        self._sizes = model.denoiser.source_sizes  # F_s
        self._tokens: list[_Step] = []  # uncached: as they reach the network
        self._arrived: list[_Step] = []  # to be renewed from: before any noise
        self._past: list[tuple[Tensor, Tensor]] | None = None
        self._steps: Tensor | None = None
        self._context: Context | None = None
        if not model.starts_empty:
            for step in range(1 - model.denoiser.memory, 0):
                self.append_unknown(step)

    @property
    def context(self) -> Context:
        """What a plan made now reads."""
        if self._context is None:
            raise RuntimeError("a history is read only after its first observation")
        return self._context

    def keep(self, rows: list[int]) -> None:
        """Go on with these episodes only."""
        self._batch = len(rows)
        self._tokens, self._arrived = (
            [(t, [x[rows] for x in xs], levels[rows]) for t, xs, levels in steps]
            for steps in (self._tokens, self._arrived)
        )
        if self._past is not None:
            self._past = [(key[rows], value[rows]) for key, value in self._past]
        if self._context is not None:
            layers = [(key[rows], value[rows]) for key, value in self._context.layers]
            self._context = Context(layers, self._context.steps, self._context.summary[rows])

    def append_unknown(self, step: int, *, executed: Tensor | None = None) -> None:
        """A step without any observation; the action executed before it, (B, A), may be known."""
        features = [torch.zeros(self._batch, 1, size) for size in self._sizes[:-1]]
        levels = torch.ones(self._batch, len(features))
        self.append(step, features=features, levels=levels, executed=executed)

    def append(
        self, step: int, *, features: list[Tensor], levels: Tensor, executed: Tensor | None
    ) -> None:
        """Take in one control step.

        Args:
            step: its number, one more than the last.
            features: (B, 1, F_s) per observed source, at unit scale, from `encode`.
            levels: (B, S - 1) their noise levels; the noise is added here. A model that knows one
                level for all takes the highest.
            executed: (B, A) at unit scale, the action executed just before; None if unknown.
        """
        known = executed is not None
        last = executed if known else torch.zeros(self._batch, self._sizes[-1])
        if self._model.context_rule.one_level:
            levels = levels.amax(dim=1, keepdim=True).expand_as(levels)
        levels = torch.cat([levels, torch.full((self._batch, 1), 0.0 if known else 1.0)], dim=1)
        clean = [*features, last.unsqueeze(1)]
        levels = levels.unsqueeze(1)  # (B, 1, S)
        if self._model.renew_at is not None:
            if len(self._arrived) == self._model.renew_at:
                self._renew(self._model.renew_at // 2)
            self._arrived.append((step, clean, levels))
        if self._cached:
            self._append_cached(step, *self._marked(clean, levels))
        else:
            self._append_uncached(step, clean, levels)

    def _renew(self, num_kept: int) -> None:
        """Encode the newest steps again, as if the episode had begun with the first of them."""
        self._arrived = self._arrived[-num_kept:]
        clean, levels, steps = _columns(self._arrived)
        levels[:, 0, -1] = 1.0  # before an episode's first step no action is known
        noisy, levels = self._marked(clean, levels)
        if not self._cached:
            self._tokens = [
                (step, [x[:, i : i + 1] for x in noisy], levels[:, i : i + 1])
                for i, (step, *_) in enumerate(self._arrived)
            ]
            return
        denoiser = self._model.denoiser
        tokens = denoiser.context_tokens(noisy)
        self._context, self._past = denoiser.read_context(tokens, levels, steps)
        self._steps = self._context.steps

    def _marked(self, clean: list[Tensor], levels: Tensor) -> tuple[list[Tensor], Tensor]:
        """Features as they reach the network, and the levels it is told."""
        noise = [self._draw((x.shape[1], x.shape[-1])) for x in clean]
        if self._mark == "noise":
            return self._model.corrupt(clean, levels, noise), levels
        observed = range(len(clean) - 1)  # the executed action is no matter of marks
        seen = self._model.corrupt(clean, levels, noise)
        for s in observed:
            is_bad = levels[..., s : s + 1] > 0
            seen[s] = clean[s] if self._mark == "flag" else torch.where(is_bad, 0.0, clean[s])
        if self._mark == "zeros":
            levels = torch.cat([torch.zeros_like(levels[..., :-1]), levels[..., -1:]], dim=-1)
        return seen, levels

    def context_at(self, level: float) -> Context:
        """The context with all of its tokens at `level` or above, noised afresh."""
        sources, levels, steps = _columns(self._tokens)
        levels = levels.clamp(min=level)
        noise = [self._draw((x.shape[1], x.shape[-1])) for x in sources]
        tokens = self._model.denoiser.context_tokens(self._model.corrupt(sources, levels, noise))
        return self._model.denoiser.read_context(tokens, levels, steps)[0]

    def _append_cached(self, step: int, noisy: list[Tensor], levels: Tensor) -> None:
        denoiser = self._model.denoiser
        tokens = denoiser.context_tokens(noisy)
        new, own = denoiser.read_context(
            tokens, levels, torch.full((1, 1), step), past=self._past, past_steps=self._steps
        )
        keep = denoiser.memory * denoiser.tokens_per_step
        if self._past is None or self._steps is None or self._context is None:
            self._past, self._context, self._steps = own, new, new.steps
            return
        self._past = [_join(old, pair, keep) for old, pair in zip(self._past, own, strict=True)]
        self._steps = torch.cat([self._steps, new.steps], dim=1)[:, -keep:]
        layers = [
            _join(old, pair, keep)
            for old, pair in zip(self._context.layers, new.layers, strict=True)
        ]
        self._context = Context(layers, self._steps, new.summary)

    def _append_uncached(self, step: int, clean: list[Tensor], levels: Tensor) -> None:
        marked = (clean, levels) if self._model.full_sequence else self._marked(clean, levels)
        self._tokens.append((step, *marked))
        if self._model.full_sequence:  # noised call by call, see `context_at`
            self._tokens = self._tokens[-self._model.denoiser.memory :]
            return
        denoiser = self._model.denoiser
        sources, all_levels, steps = _columns(self._tokens)
        tokens = denoiser.context_tokens(sources)
        self._context, _ = denoiser.read_context(tokens, all_levels, steps)


def _columns(tokens: list[_Step]) -> tuple[list[Tensor], Tensor, Tensor]:
    """Per source (B, W, F_s), their levels (B, W, S) and steps (1, W)."""
    columns = zip(*(sources for _, sources, _ in tokens), strict=True)
    levels = torch.cat([levels for _, _, levels in tokens], dim=1)
    steps = torch.tensor([step for step, _, _ in tokens])[None]
    return [torch.cat(column, dim=1) for column in columns], levels, steps


def _join(
    old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], keep: int
) -> tuple[Tensor, Tensor]:
    """Keys and values (B, heads, N, head_size) one after the other, the newest `keep` tokens."""
    return (
        torch.cat([old[0], new[0]], dim=2)[:, :, -keep:],
        torch.cat([old[1], new[1]], dim=2)[:, :, -keep:],
    )
