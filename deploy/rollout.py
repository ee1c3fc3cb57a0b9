"""Rollouts: many episodes of one policy in lock-step, in virtual time.

Every episode has its environment, perturbations and controller; the network sees them as one batch,
and episodes that end leave it. Each draws its noise from a generator of its own, so its result
depends on its seed and not on who runs beside it (up to the rounding of batched arithmetic).

    step t    perceive -> request -> (one batch) -> plans -> controllers -> environments
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deploy.controller import Controller
from deploy.episode import EpisodeResult, OnStep, StepRecord
from deploy.motion import STATE, has_hand, motion_of
from deploy.source_condition import ConditionLimits, NoveltyDetector, Sample, SourceCondition
from policy.checkpoint import LoadedPolicy
from policy.inference import complete
from policy.interface import Plan
from sim.perturbations.environment import PerturbedEnvironment
from sim.perturbations.kinds import Perturbation
from teleop_data.environment import Environment, Observation
from teleop_data.schema import Schema

FlagMode = Literal["none", "oracle", "auto"]

# capture times are exact here, and demonstrations have no picture that is a control step old
VIRTUAL_LIMITS = ConditionLimits(max_age_steps=0.5)


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Under which conditions the episodes are run.

    Attributes:
        perturb: makes the perturbations of one episode; None = there are none.
        flag: how a bad source's noise level is set: "none" believes the picture, "oracle" knows the
            truth, "auto" lets `source_condition` find out, as the policy server does.
        limits: of "auto"; None = the usual ones, but a picture that is a step old is stale.
        delay: control steps until a plan can be used.
    """

    perturb: Callable[[], Sequence[Perturbation]] | None = None
    flag: FlagMode = "auto"
    limits: ConditionLimits | None = None
    delay: int = 0


class RunningEpisode:
    """One episode between two network calls."""

    def __init__(
        self,
        environment: Environment,
        *,
        schema: Schema,
        seed: int,
        conditions: Conditions,
        novelty: NoveltyDetector | None = None,
    ) -> None:
        """Reset `environment` with `seed`; `schema` and `novelty` are the policy's."""
        self.result = EpisodeResult(seed=seed)
        self._schema, self._flag = schema, conditions.flag
        perturbations = conditions.perturb() if conditions.perturb else ()
        self._environment = PerturbedEnvironment(environment, perturbations)
        flag = "auto" if conditions.flag == "auto" else "none"
        limits = conditions.limits or VIRTUAL_LIMITS
        self._condition = SourceCondition(schema, limits=limits, flag=flag, novelty=novelty)
        self._controller = Controller(environment.schema, delay=conditions.delay)
        self._environment.reset(seed)
        self._controller.start_episode(self._environment.sight.true)
        self.result.statistics = self._controller.statistics
        self._arrived: Observation = {}
        self._levels: dict[str, float] = {}
        self._pending: list[tuple[int, Plan]] = []
        self._states: list[np.ndarray] = []  # true ones of the hand, if the world tells them
        self._add_state()

    def perceive(self, step: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """What the policy is told at `step`: observation, levels (S,), executed actions (n, A).

        n is 0 at the first step and 1 from then on.
        """
        sight, rate_hz = self._environment.sight, self._schema.rate_hz
        arrived, now_s = sight.arrived, step / rate_hz
        samples = {
            feature.name: Sample(
                value=arrived[feature.name],
                # a late frame carries its capture time
                captured_s=now_s - sight.ages.get(feature.name, 0) / rate_hz,
            )
            for feature in self._schema.observed
            if feature.name in arrived
        }
        levels = self._condition.assess(samples, now_s=now_s).levels
        if self._flag == "oracle":
            levels |= sight.truth
        self._arrived, self._levels = arrived, levels
        seen = {name: sample.value for name, sample in samples.items()}
        observation, full_levels = complete(self._schema, seen, levels)
        request = self._controller.make_request(step, arrived)
        none = np.zeros((0, *self._schema.action.shape), np.float32)
        executed = none if request.executed is None else request.executed[-1:]
        return observation, full_levels, executed

    def act(self, step: int, plan: Plan, *, delay: int, on_step: OnStep | None) -> bool:
        """Take in the plan for `step`, execute one action; whether the episode is over."""
        self._pending.append((step + (delay if step > 0 else 0), plan))
        newest = None
        for due, waiting in self._pending:
            if due <= step and self._controller.accept(waiting, step):
                newest = waiting
        self._pending = [(due, waiting) for due, waiting in self._pending if due > step]
        decision = self._controller.act(step)
        if decision.action is None:
            raise RuntimeError(f"step {step}: no slot of the first plan may be executed")
        outcome = self._environment.step(decision.action)
        self._add_state()
        if on_step is not None:
            on_step(
                StepRecord(
                    step=step,
                    observation=self._arrived,
                    plan=newest,
                    source_levels=self._levels,
                    decision=decision,
                    result=outcome,
                )
            )
        is_over = self.result.add(outcome) or step + 1 >= self._environment.max_steps
        if is_over:
            facts = self._environment.facts()
            self.result.perturbations = facts.pop("perturbations")
            self.result.facts = facts
            if self._states:
                self.result.motion = motion_of(
                    np.stack(self._states),
                    rate_hz=self._schema.rate_hz,
                    done_step=self.result.done_step,
                )
        return is_over

    def _add_state(self) -> None:
        """Remember where the hand is, whatever arrives of it."""
        if has_hand(self._environment.schema):
            self._states.append(self._environment.sight.true[STATE])


def roll_out(
    policy: LoadedPolicy,
    environments: Sequence[Environment],
    *,
    seeds: Sequence[int],
    conditions: Conditions | None = None,
    on_step: Callable[[int, StepRecord], None] | None = None,
) -> list[EpisodeResult]:
    """One episode per seed, as many at a time as there are environments.

    Args:
        policy: from `load_policy`.
        environments: all alike; each serves one episode at a time.
        seeds: of the environments' resets and of the policy's draws.
        conditions: see there; None = healthy sources, no delay.
        on_step: called with the episode's seed and record after every control step.

    Returns:
        Results in the order of `seeds`.
    """
    conditions = conditions or Conditions()
    results: list[EpisodeResult] = []
    for first in range(0, len(seeds), len(environments)):
        group = seeds[first : first + len(environments)]
        episodes = [
            RunningEpisode(
                environment,
                schema=policy.schema,
                seed=seed,
                conditions=conditions,
                novelty=policy.novelty,
            )
            for environment, seed in zip(environments, group, strict=False)
        ]
        run_lock_step(policy, episodes, delay=conditions.delay, on_step=on_step)
        results += [episode.result for episode in episodes]
    return results


def run_lock_step(
    policy: LoadedPolicy,
    episodes: list[RunningEpisode],
    *,
    delay: int,
    on_step: Callable[[int, StepRecord], None] | None,
) -> None:
    """Carry `episodes` to their ends together."""
    batch = policy.start_lock_step([episode.result.seed for episode in episodes])
    step, running = 0, list(episodes)
    while running:
        observations, levels, executed = zip(*(e.perceive(step) for e in running), strict=True)
        actions, plan_levels, calls = batch.step(
            step,
            observation={k: np.stack([o[k] for o in observations]) for k in observations[0]},
            levels=np.stack(levels),
            executed=np.stack(executed),
            delay=delay,
        )
        alive = []
        for row, episode in enumerate(running):
            plan = Plan(
                start_step=step, actions=actions[row], levels=plan_levels, network_calls=calls
            )
            seed = episode.result.seed
            record = None if on_step is None else (lambda r, s=seed: on_step(s, r))
            if not episode.act(step, plan, delay=delay, on_step=record):
                alive.append(row)
        if len(alive) < len(running):
            running = [running[row] for row in alive]
            if running:
                batch.keep(alive)
        step += 1
