"""Start gate: an episode begins when its first plan is there, and every source if possible.

    rest |--publish--publish--publish--...      cameras go on while the robot rests
               ask ------> plan                 no answer: ask again, with a new reset
                           a source missing?    ask again for a while, then begin without it

The robot is at rest, so its observation stays true however long this takes, and neither the
policy's warm-up nor a slow camera counts as delay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from deploy.controller import Controller
from deploy.plan_source import PlanAnswer, PlanSource
from teleop_data.clock import Clock
from teleop_data.environment import Observation

logger = logging.getLogger(__name__)
Publish = Callable[[Observation, float], None]
# Look for an answer this often; ask again after this, then after twice as long.
_LOOK_S, _ASK_AGAIN_S = 0.005, 2.0


@dataclass(frozen=True, kw_only=True)
class StartLimits:
    """How long the robot rests at most.

    Attributes:
        plan_s: for the first plan; afterwards there is no episode.
        source_s: for a missing source; afterwards the episode begins without it.
    """

    plan_s: float = 30.0
    source_s: float = 2.0


def await_first_plan(
    source: PlanSource,
    controller: Controller,
    observation: Observation,
    *,
    begin: Callable[[], None],
    publish: Publish,
    period_s: float,
    clock: Clock,
    limits: StartLimits,
) -> tuple[PlanAnswer | None, float]:
    """The first plan, which the controller has accepted, and when `observation` was last taken.

    Args:
        source: where plans come from.
        controller: begins its episode here, once for every question.
        observation: of the robot at rest.
        begin: tells the source that an episode begins.
        publish: called with (observation, capture time) once a period.
        period_s: duration of a control step.
        clock: the loop's.
        limits: how long this may take; None in place of a plan afterwards.
    """
    start_s = clock.now()
    publish_s, ask_s = start_s, start_s + period_s  # frames are on their way for one period
    patience_s, is_asked = _ASK_AGAIN_S, False
    while (now_s := clock.now()) < start_s + limits.plan_s:
        if now_s >= publish_s:
            publish(observation, now_s)
            publish_s = now_s + period_s
        if now_s >= ask_s:
            begin()
            controller.start_episode(observation)
            is_asked = source.send_request(controller.make_request(0, observation))
            ask_s = now_s + (patience_s if is_asked else _LOOK_S)
            patience_s *= 1 + is_asked  # or a first plan that takes long would never come
        # before the first question there may still be a plan of the previous episode
        answer = source.poll_reply() if is_asked else None
        if answer is not None:
            is_complete = "missing" not in answer.reasons.values()
            if not is_complete and now_s < start_s + limits.source_s:
                ask_s = now_s + period_s
            elif controller.accept(answer.plan, 0) and controller.can_start:
                return answer, now_s
        clock.sleep_until(now_s + _LOOK_S)
    logger.error("no plan within %s s: no episode", limits.plan_s)
    return None, start_s
