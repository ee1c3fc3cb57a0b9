"""Running episodes of a baseline: a chunk of actions every few control steps.

    observed  |o o o o o o o o|o o o o ...   every step is taken in
    plan      |a a a a a a a a . . . .|      executed up to the execution horizon, then a new one

B episodes, S observed sources, H horizon, A action size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from policy.baselines.baseline import Baseline
from policy.baselines.memory import Visible
from policy.inference import EpisodeNoise
from policy.planning import ChunkPlanning, Planning


class BaselineLockStep:
    """B running episodes of one baseline that ask at the same control steps.

    A source flagged at level 0.5 or more shows its last good features; a camera of a baseline that
    was trained with drop-out shows zeros. Every episode draws from a generator of its own.
    """

    def __init__(self, model: Baseline, planning: Planning, *, seeds: Sequence[int]) -> None:
        """Episodes with these seeds.

        Raises:
            ValueError: the planning is not by chunks, these are longer than the baseline's plans,
                or a temperature or several calls are asked of one that does not denoise its plans.
        """
        if not isinstance(planning, ChunkPlanning):
            raise ValueError(f"a baseline plans by chunks (inference=chunk), not by {planning}")
        if planning.execution_horizon > model.horizon:
            raise ValueError(
                f"execution_horizon {planning.execution_horizon} exceeds the horizon of "
                f"{model.horizon} actions"
            )
        if (planning.temperature, planning.num_calls) != (1.0, 1) and not model.denoises:
            raise ValueError(
                f"{type(model).__name__}'s plans do not begin as noise: expected temperature 1.0, "
                f"num_calls 1; got {planning.temperature} and {planning.num_calls}"
            )
        self._model, self._planning = model, planning
        self._noise = EpisodeNoise(seeds)
        drops = model.drop_out is not None
        self._visible = Visible([drops and is_camera for is_camera in model.is_camera])
        self._memory = model.start_memory(len(seeds))
        self._plan: Tensor | None = None  # (B, H, A) from `_start` on
        self._start, self._last_step = 0, -1

    @torch.inference_mode()
    def step(
        self,
        step: int,
        *,
        observation: Mapping[str, np.ndarray],
        levels: np.ndarray,
        executed: np.ndarray,
        delay: int = 0,
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Take in one control step and go on with the plans; as `policy.inference.LockStep.step`.

        Actions past the end of a plan repeat its last one, at level 1. What was executed does not
        matter to a baseline.
        """
        if step <= self._last_step:
            raise ValueError(f"step {step} after step {self._last_step}: steps must rise from 0")
        if self._planning.execution_horizon + delay > self._model.horizon:
            raise ValueError(
                f"execution_horizon {self._planning.execution_horizon} plus delay {delay} exceed "
                f"the horizon of {self._model.horizon} actions"
            )
        self._observe(step, observation, levels)
        calls = 0
        if self._plan is None or step >= self._start + self._planning.execution_horizon:
            calls = self._renew(step, delay)
        return *self._seen_from(step), calls

    @torch.inference_mode()
    def keep(self, rows: list[int]) -> None:
        """Go on with the episodes `rows` only, in that order; the others are over."""
        self._noise.keep(rows)
        self._visible.keep(rows)
        self._memory.keep(rows)
        if self._plan is not None:
            self._plan = self._plan[rows]

    def _observe(
        self, step: int, observation: Mapping[str, np.ndarray], levels: np.ndarray
    ) -> None:
        """Bring the memory up to `step`; at steps nobody asked about it sees the newest too."""
        tensors = {name: torch.from_numpy(x).unsqueeze(1) for name, x in observation.items()}
        features = [values.squeeze(1) for values in self._model.encode(tensors)]
        seen = self._visible(features, torch.as_tensor(levels, dtype=torch.float32))
        num_steps = step - self._last_step if self._plan is not None else 1
        for _ in range(min(num_steps, self._model.context)):
            self._memory.append(seen)
        self._last_step = step

    def _renew(self, step: int, delay: int) -> int:
        """A new plan behind the old one's committed actions; returns the network calls."""
        new = self._memory.plan(self._draw, self._planning.num_calls)
        if self._plan is not None and delay > 0:
            committed = self._plan[:, step - self._start :][:, :delay]
            new = torch.cat([committed, new[:, committed.shape[1] :]], dim=1)
        self._plan, self._start = new, step
        return self._planning.num_calls

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return self._planning.temperature * self._noise(shape)

    def _seen_from(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Actions (B, H, A) in the schema's unit and levels (H,) of the plan from `step` on."""
        assert self._plan is not None
        slots = np.arange(self._model.horizon) + step - self._start
        inside = np.minimum(slots, self._model.horizon - 1)
        actions = self._model.action_normalizer.unnormalize(self._plan[:, inside])
        return actions.numpy(), (slots != inside).astype(np.float32)
