"""What running episodes keep for a baseline: the newest observations, or a recurrent state.

B episodes, W context steps, F_s features of a source, H horizon, A action size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

DrawNoise = Callable[[tuple[int, ...]], Tensor]  # (shape of one episode) -> (B, *shape)
PlanFromWindow = Callable[[list[Tensor], DrawNoise, int], Tensor]


class Memory(Protocol):
    """What B episodes have seen, and a plan made from it."""

    def append(self, features: list[Tensor]) -> None:
        """Take in one control step: (B, F_s) per observed source, at unit scale."""
        ...

    def plan(self, draw: DrawNoise, num_calls: int) -> Tensor:
        """(B, H, A) at unit scale, from the newest control step on."""
        ...

    def keep(self, rows: list[int]) -> None:
        """Go on with these episodes only."""
        ...


class Window:
    """The newest W observations; before the first one, that one again, as in training."""

    def __init__(self, context: int, plan: PlanFromWindow) -> None:
        """`plan` gets (B, W, F_s) per source, noise to draw from, and the number of calls."""
        self._context, self._plan = context, plan
        self._features: list[Tensor] | None = None

    def append(self, features: list[Tensor]) -> None:
        """See `Memory`."""
        new = [values.unsqueeze(1) for values in features]
        if self._features is None:
            self._features = [values.repeat(1, self._context, 1) for values in new]
        else:
            pairs = zip(self._features, new, strict=True)
            self._features = [torch.cat([old[:, 1:], last], dim=1) for old, last in pairs]

    def plan(self, draw: DrawNoise, num_calls: int) -> Tensor:
        """See `Memory`."""
        if self._features is None:
            raise RuntimeError("a plan needs an observation")
        return self._plan(self._features, draw, num_calls)

    def keep(self, rows: list[int]) -> None:
        """See `Memory`."""
        if self._features is not None:
            self._features = [values[rows] for values in self._features]


class Visible:
    """What a flagged source shows: its last good features, or nothing if that was trained."""

    def __init__(self, shows_nothing: list[bool]) -> None:
        """Per observed source: whether it shows zeros when flagged."""
        self._shows_nothing = shows_nothing
        self._last: list[Tensor] | None = None

    def __call__(self, features: list[Tensor], levels: Tensor) -> list[Tensor]:
        """(B, F_s) per source as the baseline sees it; `levels` (B, S), flagged from 0.5 on."""
        last = self._last or [torch.zeros_like(values) for values in features]
        is_flagged = (levels >= 0.5).unsqueeze(-1)  # (B, S, 1)
        seen = [torch.where(is_flagged[:, s], last[s], x) for s, x in enumerate(features)]
        self._last = seen
        return [
            values.masked_fill(is_flagged[:, s], 0.0) if self._shows_nothing[s] else values
            for s, values in enumerate(seen)
        ]

    def keep(self, rows: list[int]) -> None:
        """Go on with these episodes only."""
        if self._last is not None:
            self._last = [values[rows] for values in self._last]
