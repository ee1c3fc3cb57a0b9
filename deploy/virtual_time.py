"""Virtual time: the controller and a policy in one process, with an injected delay.

No sockets and no waiting, so evaluation is as fast as the machine allows and repeats exactly. The
answer to the request of step t becomes usable at step t + d:

    d = 2    request   0    1    2    3
             usable    0         1    2      step 0 is waited for at rest, as over sockets
                            hold-free: the first plan covers steps 0, 1 and 2
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deploy.controller import Controller
from deploy.episode import EpisodeResult, OnStep, StepRecord
from deploy.inference_session import Answer, InferenceSession
from deploy.source_condition import ConditionLimits, Sample
from deploy.wire import Flag
from policy.interface import Policy
from teleop_data.clock import ManualClock
from teleop_data.environment import Environment, Observation

DelaySampler = Callable[[np.random.Generator], int]
# (step, true observation) -> (what arrives, true noise level by source); a perturbation's `apply`
Perceive = Callable[[int, Observation], tuple[Observation, Mapping[str, float]]]
CaptureTimes = Callable[[], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Sensing:
    """How observations become noise levels in virtual time.

    Attributes:
        flag: "auto" raises levels by condition; "none" believes whatever arrives; "oracle" takes
            the true levels from `perceive`.
        limits: when a source stops being believed.
        perceive: what arrives of an observation; None = all of it. Called once a step, in order.
        captured_s: gives capture times of the newest observation in seconds of the episode, where
            step t is at t / rate_hz; without it everything was taken just now.
    """

    flag: Flag | Literal["oracle"] = "auto"
    limits: ConditionLimits | None = None
    perceive: Perceive | None = None
    captured_s: CaptureTimes | None = None


def run_episode(
    environment: Environment,
    policy: Policy,
    *,
    seed: int,
    controller: Controller | None = None,
    delay: int | DelaySampler = 0,
    sensing: Sensing | None = None,
    on_step: OnStep | None = None,
) -> EpisodeResult:
    """One episode from reset to its end.

    Args:
        environment: reset with `seed`.
        policy: its session starts with `seed`.
        seed: fixes everything, the sampled delays included.
        controller: None = no safety limits, decided slots only, `delay` expected.
        delay: control steps until a plan can be used, or a function that draws them.
        sensing: how observations become noise levels.
        on_step: called after every control step.

    Raises:
        RuntimeError: the first plan has no slot that may be executed.
    """
    sensing = sensing or Sensing()
    initial = delay if isinstance(delay, int) else 1
    controller = controller or Controller(environment.schema, delay=initial)
    answers = _DelayedAnswers(policy, sensing=sensing, delay=delay, seed=seed)
    result, clock = EpisodeResult(seed=seed), ManualClock()
    observation = environment.reset(seed)
    controller.start_episode(observation)
    result.statistics = controller.statistics
    for step in range(environment.max_steps):
        arrived, answer = answers.tick(controller, step, observation, now_s=clock.now())
        decision = controller.act(step)
        if decision.action is None:
            raise RuntimeError(
                f"step {step}: no slot that may be executed, and nothing to hold "
                f"({decision.interventions}); levels {None if not answer else answer.plan.levels}"
            )
        outcome = environment.step(decision.action)
        if on_step is not None:
            record = StepRecord(
                step=step,
                observation=arrived,
                plan=None if answer is None else answer.plan,
                source_levels={} if answer is None else answer.assessment.levels,
                decision=decision,
                result=outcome,
            )
            on_step(record)
        if result.add(outcome):
            break
        observation = outcome.observation
        clock.sleep_until((step + 1) / environment.schema.rate_hz)
    return result


class _DelayedAnswers:
    """Answers every request at once and hands the answers over when they are due."""

    def __init__(
        self, policy: Policy, *, sensing: Sensing, delay: int | DelaySampler, seed: int
    ) -> None:
        flag = "none" if sensing.flag == "oracle" else sensing.flag
        self._session = InferenceSession(policy, seed=seed, flag=flag, limits=sensing.limits)
        self._sensing, self._delay = sensing, delay
        self._rng = np.random.default_rng([seed, 1])  # not the stream of anyone who uses `seed`
        self._due: list[tuple[int, Answer]] = []

    def tick(
        self, controller: Controller, step: int, observation: Observation, *, now_s: float
    ) -> tuple[Observation, Answer | None]:
        """Ask for a plan at `step`: what was seen, and the newest answer that became usable."""
        truth: Mapping[str, float] = {}
        if self._sensing.perceive is not None:
            observation, truth = self._sensing.perceive(step, observation)
        captured_s = self._sensing.captured_s() if self._sensing.captured_s else {}
        samples = {
            feature.name: Sample(
                value=observation[feature.name], captured_s=captured_s.get(feature.name)
            )
            for feature in self._session.sources
            if feature.name in observation
        }
        asked = self._session.answer(
            controller.make_request(step, observation),
            samples,
            now_s=now_s,
            levels=truth if self._sensing.flag == "oracle" else None,
        )
        self._due.append((step + self._draw_delay(step), asked))
        newest = None
        for due, answer in self._due:
            if due <= step and controller.accept(answer.plan, step):
                newest = answer
                controller.statistics.add_reasons(answer.assessment.reasons)
        self._due = [(due, waiting) for due, waiting in self._due if due > step]
        return observation, newest

    def _draw_delay(self, step: int) -> int:
        if step == 0:
            return 0  # the robot waits at rest for the first plan
        delay = self._delay if isinstance(self._delay, int) else self._delay(self._rng)
        if delay < 0:
            raise ValueError(f"delay {delay}; a plan does not come before its observation")
        return delay
