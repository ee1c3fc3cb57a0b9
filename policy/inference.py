"""Inference: the state of running episodes (history, plan, generators), and a policy's sessions.

`LockStep` carries B episodes together, as an evaluation wants them; a `PolicySession` is one
episode behind the interface that deployment talks to. Every episode draws from a generator of its
own, so its result does not depend on who runs beside it.

B episodes, S observed sources, H horizon, A action size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from policy.diffusion_forcing import DiffusionForcing
from policy.history import History, Mark
from policy.interface import Plan, Request
from policy.planning import Planning, PlanState, Tools
from teleop_data.schema import Schema


class EpisodeNoise:
    """Standard normal draws for B episodes, each from its own seed."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape)."""
        return torch.stack([torch.randn(shape, generator=g) for g in self._generators])

    def keep(self, rows: list[int]) -> None:
        """Go on with these episodes only."""
        self._generators = [self._generators[row] for row in rows]


class LockStep:
    """B running episodes of one policy that ask at the same control steps."""

    def __init__(
        self,
        model: DiffusionForcing,
        planning: Planning,
        *,
        seeds: Sequence[int],
        cached: bool = True,
        mark: Mark = "noise",
    ) -> None:
        self._model, self._planning = model, planning
        self._noise = EpisodeNoise(seeds)
        with torch.inference_mode():
            self._history = History(
                model, batch=len(seeds), draw_noise=self._noise, cached=cached, mark=mark
            )
        self._plan: PlanState | None = None
        self._last_step = -1

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
        """Take in one control step of every episode and go on with the plans.

        Args:
            step: its number; it rises from call to call.
            observation: every observed feature, (B, *shape).
            levels: (B, S) their noise levels; what is at level 1 is not looked at.
            executed: (B, n, A) actions executed at steps step-n .. step-1, in the schema's unit.
            delay: see `policy.interface.Request`.

        Returns:
            actions (B, H, A) in the schema's unit, levels (H,), network calls.
        """
        self._append(step, observation, levels, executed)
        tools = Tools(
            schedule=self._model.noise_schedule,
            denoise=self._denoiser_at(step),
            draw=lambda slots: self._noise((slots, self._action_size)),
            horizon=self._model.horizon,
        )
        self._plan, calls = self._planning.advance(self._plan, step=step, delay=delay, tools=tools)
        decided = torch.as_tensor(self._plan.levels == 0).view(1, -1, 1)
        best = torch.where(decided, self._plan.x, self._plan.clean)
        actions = self._model.action_normalizer.unnormalize(best).numpy()
        return actions, self._plan.levels.astype(np.float32), calls

    @torch.inference_mode()
    def keep(self, rows: list[int]) -> None:
        """Go on with the episodes `rows` only, in that order; the others are over."""
        self._noise.keep(rows)
        self._history.keep(rows)
        if self._plan is not None:
            self._plan = replace(self._plan, x=self._plan.x[rows], clean=self._plan.clean[rows])

    @property
    def _action_size(self) -> int:
        return self._model.action_normalizer.normalized_size

    def _append(
        self,
        step: int,
        observation: Mapping[str, np.ndarray],
        levels: np.ndarray,
        executed: np.ndarray,
    ) -> None:
        """Bring the history up to `step`; steps that nobody asked about are unknown."""
        if step <= self._last_step:
            raise ValueError(f"step {step} after step {self._last_step}: steps must rise from 0")
        actions = self._model.action_normalizer.normalize(torch.as_tensor(executed))
        first = max(self._last_step + 1, step - self._model.denoiser.memory + 1)
        for missed in range(first, step):
            self._history.append_unknown(missed, executed=_action_before(missed, step, actions))
        tensors = {name: torch.from_numpy(x).unsqueeze(1) for name, x in observation.items()}
        self._history.append(
            step,
            features=self._model.encode(tensors),
            levels=torch.as_tensor(levels, dtype=torch.float32),
            executed=_action_before(step, step, actions),
        )
        self._last_step = step

    def _denoiser_at(self, step: int) -> Callable[[Tensor, Tensor], Tensor]:
        slots = step + torch.arange(self._model.horizon)
        clip = self._model.clip

        def denoise(x: Tensor, k: Tensor) -> Tensor:
            steps, history = slots.expand(len(x), -1), self._history
            is_full = self._model.full_sequence
            context = history.context_at(float(k.max())) if is_full else history.context
            clean = self._model.clean_estimate(x, k, steps, context)
            return clean if clip is None else clean.clamp(-clip, clip)

        return denoise


def _action_before(step: int, now: int, actions: Tensor) -> Tensor | None:
    """(B, A) action executed just before `step`, if `actions` (B, n, A), up to now-1, has it."""
    position = actions.shape[1] - 1 - (now - step)
    return actions[:, position] if 0 <= position < actions.shape[1] else None


class RunningEpisodes(Protocol):
    """Episodes of one policy that are advanced together, such as `LockStep`."""

    def step(
        self,
        step: int,
        *,
        observation: Mapping[str, np.ndarray],
        levels: np.ndarray,
        executed: np.ndarray,
        delay: int = 0,
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """See `LockStep.step`."""
        ...

    def keep(self, rows: list[int]) -> None:
        """See `LockStep.keep`."""
        ...


class PolicySession:
    """One episode of a policy: `policy.interface.Session`."""

    def __init__(self, schema: Schema, episode: RunningEpisodes) -> None:
        """The only one of `episode`, whose policy was trained on `schema`."""
        self._schema, self._episode = schema, episode

    def step(self, request: Request) -> Plan:
        """Take in what happened, return the plan; see `policy.interface.Request`."""
        observation, levels = complete(self._schema, request.observation, request.levels)
        action = self._schema.action
        executed = request.executed
        if executed is None:
            executed = np.zeros((0, *action.shape), np.float32)
        if executed.shape[1:] != action.shape or not np.isfinite(executed).all():
            raise ValueError(
                f"executed actions must be finite (n, {action.shape[0]}), got {executed.shape}"
            )
        actions, plan_levels, calls = self._episode.step(
            request.step,
            observation={name: value[None] for name, value in observation.items()},
            levels=levels[None],
            executed=executed[None],
            delay=request.delay,
        )
        return Plan(
            start_step=request.step, actions=actions[0], levels=plan_levels, network_calls=calls
        )


def complete(
    schema: Schema, observation: Mapping[str, np.ndarray], levels: Mapping[str, float]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every observed feature and its level (S,); what is absent is zeros at level 1.

    Raises:
        KeyError: a source that the schema does not observe.
        ValueError: a wrong shape or dtype, a value that is not finite, a level outside [0, 1].
    """
    names = [feature.name for feature in schema.observed]
    unknown = (set(observation) | set(levels)) - set(names)
    if unknown:
        raise KeyError(f"no observed feature {sorted(unknown)}; have: {', '.join(names)}")
    full, full_levels = {}, np.zeros(len(names), np.float32)
    for i, feature in enumerate(schema.observed):
        level = float(levels.get(feature.name, 0.0))
        if not 0 <= level <= 1:
            raise ValueError(f"level of {feature.name!r} must lie in [0, 1], got {level}")
        if feature.name in observation:
            feature.check(observation[feature.name])
            full[feature.name], full_levels[i] = observation[feature.name], level
        else:
            full[feature.name] = np.zeros(feature.shape, feature.dtype)
            full_levels[i] = 1.0
    return full, full_levels
