"""The recording loop: episodes one after the other, as the operator says, at a fixed rate.

    reset | wait for start | tick: act, hand over, step | tick: ... | decide: keep or drop | reset

What goes wrong is reported at once and marked in the episode's attributes: `trouble`, sentences in
order, and `interrupted` where the episode did not end as operator or environment meant it to.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict

import numpy as np

from teleop_data.background_writer import BackgroundWriter
from teleop_data.clock import Clock
from teleop_data.environment import Environment, Observation
from teleop_data.open_episode import OpenEpisode, Verdict
from teleop_data.operator import Operator, Phase, Status
from teleop_data.recorded_timing import CaptureTimed, Pace, Tick, timing_values, with_timing
from teleop_data.recorder import episode_attributes, labelled, recording_schema, told
from teleop_data.step_watch import StepWatch
from teleop_data.teleoperator import Teleoperator

LATE_SHARE = 0.2  # of a period: a step that begins later is reported
REPORT_EVERY_S = 1.0  # the same trouble is reported once in so long


class RecordingLoop:
    """Records episodes of one environment and teleoperator. Not thread-safe."""

    def __init__(
        self,
        environment: Environment,
        teleoperator: Teleoperator,
        *,
        operator: Operator,
        writer: BackgroundWriter,
        watch: StepWatch,
        clock: Clock,
        stopped: threading.Event | None = None,
        report: Callable[[str], None] = print,
    ) -> None:
        """Record what these do.

        Args:
            environment: where; it may be `CaptureTimed` and `Labelled`.
            teleoperator: who drives; may be `Labelled`.
            operator: who starts and keeps; often the teleoperator itself.
            writer: takes the steps.
            watch: over calls of the environment.
            clock: paces the steps at the schema's rate.
            stopped: ends the session when it is set, as the operator's stop does.
            report: told of trouble, a sentence at a time.

        Raises:
            ValueError: a label has a name that is taken, or another role than "other".
        """
        self._environment, self._teleoperator = environment, teleoperator
        self._operator, self._writer, self._watch = operator, writer, watch
        self._clock, self._report = clock, report
        self._stopped = stopped or threading.Event()
        self.schema = with_timing(recording_schema(environment, teleoperator))
        self._sources = labelled(environment, teleoperator)
        self._period_s = 1 / self.schema.rate_hz
        self._pace = Pace(clock, rate_hz=self.schema.rate_hz)
        self._reported_s: dict[str, float] = {}
        self._num_kept = 0

    def run(self, *, first_seed: int, num_kept: int = 0, num_episodes: int | None = None) -> None:
        """Record until there are `num_episodes` kept ones with the `num_kept` that are there (None:
        until the operator stops), or until the writer fails.

        Raises:
            OSError: the environment failed or froze; what was recorded of the episode is kept,
                marked as interrupted. Any other error is raised on as well, after the same.
        """
        self._num_kept, seed = num_kept, first_seed
        while num_episodes is None or self._num_kept < num_episodes:
            observation = self._wait_for_start(seed)
            if observation is None or self._writer.failure:
                return
            self._record(seed, observation)
            seed += 1

    def _wait_for_start(self, seed: int) -> Observation | None:
        """The first observation, once the operator says start; None if the session is over. The
        environment shows the start of the episode meanwhile."""
        observation, is_fresh = self._environment.reset(seed), True
        while not self._stopped.is_set():
            self._operator.tell(self._status("waiting", OpenEpisode(seed=seed), observation))
            command = self._operator.poll()
            if command is not None and command.kind == "start":
                return observation if is_fresh else self._environment.reset(seed)
            if command is not None and command.kind == "stop":
                self._stopped.set()
            elif command is None:
                is_fresh = False
                self._clock.sleep_until(self._clock.now() + self._period_s)
        return None

    def _record(self, seed: int, observation: Observation) -> None:
        """One episode, from its start to the writer's being told what becomes of it."""
        episode, verdict = OpenEpisode(seed=seed), "interrupted"
        self._reported_s.clear()
        self._writer.start(self.schema, {"seed": seed})
        try:
            verdict = self._drive(episode, observation) or self._decide(episode)
        finally:
            error = sys.exception()
            if error is not None:
                self._tell(episode, "error", f"{type(error).__name__}: {error}", report=False)
            self._end(episode, verdict=verdict)

    def _drive(self, episode: OpenEpisode, observation: Observation) -> Verdict | None:
        """Control steps until something ends the episode; None if the operator is to decide."""
        self._teleoperator.reset(episode.seed)
        self._pace.start()
        captured_s, num_missed = self._captured_s(), 0
        while episode.num_steps < self._environment.max_steps:
            tick = self._pace.tick()
            num_missed += tick.num_missed
            self._notice(episode, tick)
            if verdict := self._obey(episode, observation, phase="recording"):
                return verdict
            action = np.array(self._teleoperator.act(observation))
            others = told(self._sources, schema=self.schema) | timing_values(
                tick, missed_steps=num_missed, start_s=self._pace.start_s, captured_s=captured_s
            )
            is_taken = self._hand_over(episode, observation, action, others)
            num_missed = 0 if is_taken else num_missed + 1
            with self._watch.awaiting("step() of the environment"):
                result = self._environment.step(action)
            captured_s, observation = self._captured_s(), result.observation
            episode.add(result)
            if result.terminated:
                break
        return None

    def _decide(self, episode: OpenEpisode) -> Verdict:
        """What the operator makes of an episode that is over."""
        while not (verdict := self._obey(episode, None, phase="deciding")):
            self._clock.sleep_until(self._clock.now() + self._period_s)
        return verdict

    def _obey(
        self, episode: OpenEpisode, observation: Observation | None, *, phase: Phase
    ) -> Verdict | None:
        """What the next command of the operator, a signal or a full disk make of the episode."""
        self._operator.tell(self._status(phase, episode, observation))
        command = self._operator.poll()
        if self._writer.failure:
            self._tell(episode, "disk", self._writer.failure, report=False)
            return "interrupted"
        if self._stopped.is_set() or (command is not None and command.kind == "stop"):
            self._stopped.set()
            self._tell(episode, "stop", "stopped by the operator", report=False)
            return "interrupted"
        if command is not None and command.kind == "label":
            self._writer.note({"text": command.text})
        if command is not None and (command.kind == "keep" or command.kind == "drop"):
            return command.kind
        return None

    def _hand_over(
        self,
        episode: OpenEpisode,
        observation: Observation,
        action: np.ndarray,
        others: Mapping[str, np.ndarray],
    ) -> bool:
        """Whether the writer took the step. KeyError or ValueError if it does not fit the schema,
        so that it would spoil the episode."""
        self.schema.check_observation(observation)
        self.schema.action.check(action)
        for name, value in others.items():
            self.schema[name].check(value)
        if self._writer.add({**observation, self.schema.action.name: action, **others}):
            episode.num_steps += 1
            return True
        episode.num_lost += 1
        text = f"the disk is too slow: {episode.num_lost} steps lost since the episode began"
        self._tell(episode, "lost", text)
        return False

    def _notice(self, episode: OpenEpisode, tick: Tick) -> None:
        """Report a late step."""
        late_s = tick.late_s + tick.num_missed * self._period_s
        if late_s > LATE_SHARE * self._period_s:
            episode.num_late += 1
            self._tell(
                episode,
                "late",
                f"step {episode.num_steps} began {1e3 * late_s:.0f} ms late "
                f"({episode.num_late} late steps since the episode began)",
            )

    def _tell(self, episode: OpenEpisode, kind: str, text: str, *, report: bool = True) -> None:
        """Mark trouble of a `kind` in the episode, the first time, and report it now and then."""
        now_s = self._clock.now()
        if kind not in self._reported_s:
            episode.trouble.append(text)
        elif now_s - self._reported_s[kind] < REPORT_EVERY_S:
            return
        self._reported_s[kind] = now_s
        if report:
            self._report(text)

    def _end(self, episode: OpenEpisode, *, verdict: Verdict) -> None:
        """Tell the writer what becomes of the episode."""
        if episode.num_steps == 0 or verdict == "drop":
            self._writer.drop()
            self._report(f"dropped {episode.text}")
            return
        if verdict == "keep":
            self._num_kept += 1
            attributes = episode_attributes(
                self._environment, self._teleoperator, summary=episode.summary
            )
        else:  # what failed is not asked for its facts
            attributes = {**asdict(episode.summary), "interrupted": True}
        attributes |= {
            "trouble": episode.trouble,
            "num_late_steps": episode.num_late,
            "num_lost_steps": episode.num_lost,
        }
        word = "kept" if verdict == "keep" else "interrupted, kept what there is of"
        self._writer.finish(attributes, summary=f"{word} {episode.text}")

    def _captured_s(self) -> dict[str, float]:
        """Capture time of every source of the observation that has just come."""
        now_s = self._clock.now()
        captured_s = {feature.name: now_s for feature in self.schema.observed}
        if isinstance(self._environment, CaptureTimed):
            captured_s |= self._environment.captured_s()
        return captured_s

    def _status(
        self, phase: Phase, episode: OpenEpisode, observation: Observation | None
    ) -> Status:
        return Status(
            phase=phase,
            seed=episode.seed,
            num_kept=self._num_kept,
            num_steps=episode.num_steps,
            success=episode.success,
            observation=observation,
            trouble=episode.trouble[-1] if episode.trouble else "",
        )
