"""Control loop: real sockets, wall clock, fixed rate on absolute deadlines.

    tick t:  wait for start + t dt | send request t | take what arrived | act | next observation
                                     never waits for the network

A tick that comes less than one period late runs at once; periods that went by altogether are
skipped and counted, and the phase is kept, so lateness never adds up and no burst follows a stall.
Control steps count the ticks that ran: a skipped period delays the rest of the plan by one, during
which a position-controlled robot rests at its last command. So a plan never jumps ahead.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from deploy.controller import Controller
from deploy.episode import EpisodeResult, OnStep, StepRecord
from deploy.plan_source import PlanAnswer, PlanSource
from deploy.start_gate import Publish, StartLimits, await_first_plan
from deploy.wire import Flag
from teleop_data.clock import Clock
from teleop_data.environment import Environment, Observation


class Ticker:
    """Absolute deadlines start + n period. The first one is at construction."""

    def __init__(self, clock: Clock, *, period_s: float) -> None:
        self._clock, self._period_s = clock, period_s
        self._start_s, self._index = clock.now(), 0

    def wait(self) -> tuple[float, int]:
        """Return at the next deadline: lateness in seconds, and periods that were skipped."""
        self._clock.sleep_until(self._start_s + self._index * self._period_s)
        elapsed_s = self._clock.now() - self._start_s
        # a float's breadth above, or a deadline met exactly would count as missed
        newest = int(elapsed_s / self._period_s + 1e-9)
        num_missed = max(0, newest - self._index)
        self._index += num_missed + 1
        return elapsed_s - (self._index - 1) * self._period_s, num_missed


@dataclass(frozen=True, kw_only=True)
class LoopLimits:
    """When a loop gives up.

    Attributes:
        start: how long the robot rests before an episode.
        max_hold_s: an episode ends after holding without a break for as long.
    """

    start: StartLimits = field(default_factory=StartLimits)
    max_hold_s: float = 10.0


class ControlLoop:
    """Drives an environment with plans from a source.

    Args:
        environment: a robot or its simulation; the loop owns its time.
        source: where plans come from.
        controller: the logic of a control step.
        clock: wall clock, or a test's.
        limits: when to give up.
        publish: called with (observation, capture time) for every new observation, to stream a
            simulated robot's cameras.
    """

    def __init__(
        self,
        environment: Environment,
        source: PlanSource,
        *,
        controller: Controller,
        clock: Clock,
        limits: LoopLimits | None = None,
        publish: Publish | None = None,
    ) -> None:
        self._environment, self._source, self._controller = environment, source, controller
        self._clock, self._limits = clock, limits or LoopLimits()
        self._publish = publish or (lambda _observation, _captured_s: None)

    def run_episode(
        self, *, episode: int, seed: int, flag: Flag = "auto", on_step: OnStep | None = None
    ) -> EpisodeResult:
        """One episode from reset to its end; never raises because of the network."""
        result = EpisodeResult(seed=seed)
        observation, period_s = self._environment.reset(seed), 1 / self._environment.schema.rate_hz
        answer, captured_s = await_first_plan(
            self._source,
            self._controller,
            observation,
            begin=lambda: self._source.reset(episode=episode, seed=seed, flag=flag),
            publish=self._publish,
            period_s=period_s,
            clock=self._clock,
            limits=self._limits.start,
        )
        result.statistics = self._controller.statistics
        if answer is None:
            result.ending = "no_plan"
            return result
        result.statistics.add_reasons(answer.reasons)
        ticker, num_held = Ticker(self._clock, period_s=period_s), 0
        for step in range(self._environment.max_steps):
            lateness_s, num_missed = ticker.wait()
            result.statistics.add_tick(lateness_s, num_missed=num_missed)
            if step > 0:
                answer = self._exchange(step, observation, captured_s)
            record = self._act(step, observation, answer)
            observation, captured_s = record.result.observation, self._clock.now()
            self._publish(observation, captured_s)
            if on_step is not None:
                on_step(record)
            if result.add(record.result):
                break
            num_held = num_held + 1 if record.decision.case == "hold" else 0
            if num_held * period_s > self._limits.max_hold_s:
                result.ending = "held_too_long"
                break
        return result

    def _exchange(
        self, step: int, observation: Observation, captured_s: float
    ) -> PlanAnswer | None:
        request = self._controller.make_request(step, observation)
        self._source.send_request(request, captured_s=dict.fromkeys(observation, captured_s))
        return self._take(step)

    def _take(self, step: int) -> PlanAnswer | None:
        """The newest plan that arrived, given to the controller; None if none was newer."""
        answer = self._source.poll_reply()
        if answer is None:
            return None
        accepted = self._controller.accept(
            answer.plan,
            step,
            valid_until=answer.valid_until,
            round_trip_s=answer.round_trip_s,
        )
        if not accepted:
            return None
        self._controller.statistics.add_reasons(answer.reasons)
        return answer

    def _act(self, step: int, observation: Observation, answer: PlanAnswer | None) -> StepRecord:
        decision = self._controller.act(step)
        if decision.action is None:
            raise RuntimeError(
                f"step {step}: nothing was ever commanded and nothing may be "
                f"({decision.interventions}); loosen the safety limits or give start_from"
            )
        return StepRecord(
            step=step,
            observation=observation,
            plan=None if answer is None else answer.plan,
            source_levels={} if answer is None else answer.source_levels,
            decision=decision,
            result=self._environment.step(decision.action),
        )
