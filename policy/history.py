"""What an episode has seen so far, as the denoiser reads it: keys and values of the last W steps.

    history  |? ? ?|o a|o a|o a| ...   each step's tokens are encoded once, at their noise levels
              unknown before the reset: level 1

B episodes in lock-step, S sources, W the denoiser's memory in control steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from policy.denoiser import Context
from policy.diffusion_forcing import DiffusionForcing

DrawNoise = Callable[[tuple[int, ...]], Tensor]  # (shape of one episode) -> (B, *shape)


class History:
    """The context of B episodes. Keeps the caches if `cached`, else re-encodes every step's tokens.

    Not cached is slower and grows with the episode; it exists to check the cache against.
    """

    def __init__(
        self, model: DiffusionForcing, *, batch: int, draw_noise: DrawNoise, cached: bool = True
    ) -> None:
        self._model, self._batch, self._draw, self._cached = model, batch, draw_noise, cached
        self._sizes = model.denoiser.source_sizes  # F_s
        self._tokens: list[
            tuple[int, list[Tensor], Tensor]
        ] = []  # uncached: step, features, levels
        self._past: list[tuple[Tensor, Tensor]] | None = None
        self._steps: Tensor | None = None
        self._context: Context | None = None
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
        self._tokens = [(t, [x[rows] for x in xs], levels[rows]) for t, xs, levels in self._tokens]
        if self._past is not None:
            self._past = [(key[rows], value[rows]) for key, value in self._past]
        if self._context is not None:
            layers = [(key[rows], value[rows]) for key, value in self._context.layers]
            self._context = Context(layers, self._context.steps)

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
            levels: (B, S - 1) their noise levels; the noise is added here.
            executed: (B, A) at unit scale, the action executed just before; None if unknown.
        """
        known = executed is not None
        last = executed if known else torch.zeros(self._batch, self._sizes[-1])
        levels = torch.cat([levels, torch.full((self._batch, 1), 0.0 if known else 1.0)], dim=1)
        clean = [*features, last.unsqueeze(1)]
        noise = [self._draw((1, x.shape[-1])) for x in clean]
        levels = levels.unsqueeze(1)  # (B, 1, S)
        noisy = self._model.corrupt(clean, levels, noise)
        if self._cached:
            self._append_cached(step, noisy, levels)
        else:
            self._append_uncached(step, noisy, levels)

    def _append_cached(self, step: int, noisy: list[Tensor], levels: Tensor) -> None:
        denoiser = self._model.denoiser
        tokens = denoiser.context_tokens(noisy)
        steps = torch.full((1, len(noisy)), step)
        new, own = denoiser.read_context(
            tokens, levels.flatten(1), steps, past=self._past, past_steps=self._steps
        )
        keep = denoiser.memory * len(noisy)
        if self._past is None or self._steps is None or self._context is None:
            self._past, self._context, self._steps = own, new, steps
            return
        self._past = [_join(old, pair, keep) for old, pair in zip(self._past, own, strict=True)]
        self._steps = torch.cat([self._steps, steps], dim=1)[:, -keep:]
        layers = [
            _join(old, pair, keep)
            for old, pair in zip(self._context.layers, new.layers, strict=True)
        ]
        self._context = Context(layers, self._steps)

    def _append_uncached(self, step: int, noisy: list[Tensor], levels: Tensor) -> None:
        denoiser = self._model.denoiser
        self._tokens.append((step, noisy, levels))
        sources = [
            torch.cat(parts, dim=1) for parts in zip(*(t[1] for t in self._tokens), strict=True)
        ]
        all_levels = torch.cat([t[2] for t in self._tokens], dim=1)
        steps = torch.tensor([t[0] for t in self._tokens]).repeat_interleave(len(noisy))[None]
        tokens = denoiser.context_tokens(sources)
        self._context, _ = denoiser.read_context(tokens, all_levels.flatten(1), steps)


def _join(
    old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], keep: int
) -> tuple[Tensor, Tensor]:
    """Keys and values (B, heads, N, head_size) one after the other, the newest `keep` tokens."""
    return (
        torch.cat([old[0], new[0]], dim=2)[:, :, -keep:],
        torch.cat([old[1], new[1]], dim=2)[:, :, -keep:],
    )
