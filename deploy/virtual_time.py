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
Levels = Callable[[], Mapping[str, float]]
CaptureTimes = Callable[[], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Sensing:
    """How observations become noise levels in virtual time.

    Attributes:
        flag: "auto" raises levels by condition; "none" believes whatever exists.
        limits: when a source stops being believed.
        oracle: gives the true noise levels of the newest observation; they stand instead of the
            assessed ones.
        captured_s: gives capture times of the newest observation in seconds of the episode, where
            step t is at t / rate_hz; without it everything was taken just now.
    """

    flag: Flag = "auto"
    limits: ConditionLimits | None = None
    oracle: Levels | None = None
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
    session = InferenceSession(policy, seed=seed, flag=sensing.flag, limits=sensing.limits)
    source = _DelayedAnswers(session, sensing=sensing, delay=delay, seed=seed)
    result, clock = EpisodeResult(seed=seed), ManualClock()
    observation = environment.reset(seed)
    controller.start_episode(observation)
    result.statistics = controller.statistics
    for step in range(environment.max_steps):
        answer = source.tick(controller, step=step, observation=observation, now_s=clock.now())
        if step == 0 and not controller.can_start:
            raise RuntimeError(
                f"no executable first slot; levels {None if answer is None else answer.plan.levels}"
            )
        decision = controller.act(step)
        if decision.action is None:
            raise RuntimeError(f"step {step}: nothing to command ({decision.interventions})")
        outcome = environment.step(decision.action)
        if on_step is not None:
            on_step(
                StepRecord(
                    step=step,
                    observation=observation,
                    plan=None if answer is None else answer.plan,
                    source_levels={} if answer is None else answer.assessment.levels,
                    decision=decision,
                    result=outcome,
                )
            )
        if result.add(outcome):
            break
        observation = outcome.observation
        clock.sleep_until((step + 1) / environment.schema.rate_hz)
    return result


class _DelayedAnswers:
    """Answers every request at once and hands the answers over when they are due."""

    def __init__(
        self,
        session: InferenceSession,
        *,
        sensing: Sensing,
        delay: int | DelaySampler,
        seed: int,
    ) -> None:
        self._session, self._sensing, self._delay = session, sensing, delay
        self._rng = np.random.default_rng([seed, 1])  # not the stream of anyone who uses `seed`
        self._due: list[tuple[int, Answer]] = []

    def tick(
        self, controller: Controller, *, step: int, observation: Observation, now_s: float
    ) -> Answer | None:
        """Ask for a plan at `step`; the newest answer that became usable with it."""
        captured_s = self._sensing.captured_s() if self._sensing.captured_s else {}
        samples = {
            feature.name: Sample(
                value=observation[feature.name], captured_s=captured_s.get(feature.name)
            )
            for feature in self._session.sources
            if feature.name in observation
        }
        answer = self._session.answer(
            controller.make_request(step, observation),
            samples,
            now_s=now_s,
            levels=self._sensing.oracle() if self._sensing.oracle else None,
        )
        self._due.append((step + self._draw_delay(step), answer))
        newest = None
        for due, arrived in self._due:
            if due <= step and controller.accept(arrived.plan, step):
                newest = arrived
        self._due = [(due, waiting) for due, waiting in self._due if due > step]
        return newest

    def _draw_delay(self, step: int) -> int:
        if step == 0:
            return 0  # the robot waits at rest for the first plan
        delay = self._delay if isinstance(self._delay, int) else self._delay(self._rng)
        if delay < 0:
            raise ValueError(f"delay {delay}; a plan does not come before its observation")
        return delay
