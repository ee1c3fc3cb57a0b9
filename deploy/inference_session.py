"""Inference session: one episode of one robot, where the policy lives.

Wraps a policy's session with what belongs to every deployment, over sockets or in virtual time: the
sources' conditions become noise levels, executed actions that the policy knows already are dropped,
and a plan that is not one is refused before it reaches a robot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from deploy.source_condition import Assessment, ConditionLimits, Sample, SourceCondition
from deploy.wire import Flag
from policy.interface import Plan, Policy, Request
from teleop_data.schema import Feature


class InvalidPlanError(RuntimeError):
    """A policy gave a plan that no robot may get: not finite, misshapen, or for another step."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A plan, the request that the policy was really given, and the sources' conditions."""

    plan: Plan
    request: Request
    assessment: Assessment


class InferenceSession:
    """One episode's state. Not thread-safe.

    Args:
        policy: serves any number of sessions.
        seed: fixes every random draw of the episode.
        flag: "auto" raises levels by condition; "none" believes whatever exists.
        limits: when a source stops being believed.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        seed: int,
        flag: Flag = "auto",
        limits: ConditionLimits | None = None,
    ) -> None:
        self._policy, self._seed = policy, seed
        self._condition = SourceCondition(
            policy.schema,
            limits=limits,
            flag=flag,
            novelty=getattr(policy, "novelty", None),  # of one that knows its training pictures
        )
        self.restart()

    @property
    def sources(self) -> tuple[Feature, ...]:
        """The features that the policy may see."""
        return self._policy.schema.observed

    def restart(self) -> None:
        """Begin the policy's state afresh, after it raised. What is known of sources is kept."""
        self._session = self._policy.start_session(self._seed)
        self._last_step: int | None = None

    def answer(
        self,
        request: Request,
        samples: Mapping[str, Sample],
        *,
        now_s: float,
        levels: Mapping[str, float] | None = None,
    ) -> Answer:
        """The plan for `request`, seen through `samples`.

        Args:
            request: step, executed actions and delay; its observation and levels are not used.
            samples: newest value by source; one that never spoke is absent.
            now_s: time on the clock of the samples' capture times.
            levels: noise levels that stand instead of the assessed ones (an oracle's).

        Raises:
            ValueError: something is off the schema, or the step does not rise.
            InvalidPlanError: the policy's plan is broken.
        """
        self._check(request, samples)
        assessment = self._condition.assess(samples, now_s=now_s)
        if levels is not None:
            assessment = replace(assessment, levels={**assessment.levels, **levels})
        request = replace(
            request,
            observation={name: sample.value for name, sample in samples.items()},
            levels=assessment.levels,
            executed=executed_since(request, self._last_step),
        )
        plan = self._session.step(request)
        self._last_step = request.step
        check_plan(plan, request, num_entries=int(np.prod(self._policy.schema.action.shape)))
        return Answer(plan=plan, request=request, assessment=assessment)

    def _check(self, request: Request, samples: Mapping[str, Sample]) -> None:
        observed = {feature.name: feature for feature in self._policy.schema.observed}
        for name, sample in samples.items():
            if name not in observed:
                raise ValueError(f"the policy has no source {name!r}; it has {sorted(observed)}")
            observed[name].check(sample.value)
        if self._last_step is not None and request.step <= self._last_step:
            raise ValueError(
                f"step {request.step} after step {self._last_step}; steps rise within an episode"
            )
        action_shape = self._policy.schema.action.shape
        if request.executed is not None and request.executed.shape[1:] != action_shape:
            raise ValueError(
                f"executed actions {request.executed.shape}; expected (n, {action_shape[0]})"
            )


def executed_since(request: Request, last_step: int | None) -> np.ndarray | None:
    """The request's executed actions (n, A) that a policy last told at `last_step` has not seen.

    A robot repeats what it executed since the newest plan it has; with an inference delay of d
    steps that is d actions more than are news. None if nothing is, as in a session's first request.
    """
    if last_step is None or request.executed is None:
        return None
    return request.executed[-(request.step - last_step) :]


def check_plan(plan: Plan, request: Request, *, num_entries: int) -> None:
    """Raise InvalidPlanError unless `plan` answers `request` and is finite and well-shaped."""
    horizon = len(plan.actions)
    if plan.start_step != request.step:
        raise InvalidPlanError(f"plan for step {plan.start_step} answers step {request.step}")
    if horizon < 1 or plan.actions.shape != (horizon, num_entries):
        raise InvalidPlanError(f"plan has shape {plan.actions.shape}; expected (H, {num_entries})")
    if plan.levels.shape != (horizon,):
        raise InvalidPlanError(f"levels have shape {plan.levels.shape}; expected {(horizon,)}")
    if not (np.isfinite(plan.actions).all() and np.isfinite(plan.levels).all()):
        raise InvalidPlanError(f"plan for step {plan.start_step} is not finite")
    if plan.levels.min() < 0 or plan.levels.max() > 1 or np.any(np.diff(plan.levels) < 0):
        raise InvalidPlanError(f"levels must rise along time within [0, 1], got {plan.levels}")


def warm_up(policy: Policy) -> None:
    """Answer one request made of zeros, so that the first robot does not pay for set-up."""
    session = InferenceSession(policy, seed=0)
    zeros = {f.name: Sample(value=np.zeros(f.shape, f.dtype)) for f in policy.schema.observed}
    session.answer(Request(step=0, observation={}), zeros, now_s=0.0)
