"""Films of rollouts: an mp4 and a picture of all noise levels for each of a few episodes.

What is worth filming is known at an episode's end. So where an environment can go back to saved
moments, episodes are taped and then filmed or forgotten; elsewhere the first few are filmed live.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np

from deploy.episode import StepRecord
from deploy.film_frame import HEIGHT, WIDTH, FilmedStep, draw_frame
from deploy.level_picture import LevelHistory, draw_levels
from policy.interface import Plan
from teleop_data.environment import Environment, Rewindable

FINAL_PAUSE_S = 1.0  # the last frame stays, so that one sees how it ended
MAX_TAPES = 16  # at a time: the pictures of one episode may take 10 MB


class Film:
    """One episode's film, encoded in memory."""

    def __init__(self, environment: Environment, *, seed: int) -> None:
        """Film `environment`, which runs the episode of `seed`."""
        self._environment, self._seed = environment, seed
        self._rate_hz = environment.schema.rate_hz
        self._file = io.BytesIO()
        self._container = av.open(self._file, "w", format="mp4")
        rate = Fraction(self._rate_hz).limit_denominator(1000)
        stream = self._container.add_stream("libx264", rate=rate, options={"crf": "23"})
        self._stream = cast(av.VideoStream, stream)
        self._stream.width, self._stream.height = WIDTH, HEIGHT
        self._stream.pix_fmt = "yuv420p"  # what browsers play
        self._plan: Plan | None = None
        self._last_frame: np.ndarray | None = None
        self.levels = LevelHistory()

    def add(self, record: StepRecord) -> None:
        """Take in one control step, after which the environment stands where it is now."""
        if record.plan is not None:
            self._plan = record.plan
        levels = np.zeros(0, np.float32)
        if self._plan is not None:
            levels = self._plan.levels[record.step - self._plan.start_step :]
        self.levels.add(record.step, plan_levels=levels, source_levels=record.source_levels)
        filmed = FilmedStep(
            seed=self._seed,
            step=record.step,
            reward=record.result.reward,
            is_success=record.result.success,
            world=self._environment.render(),
            observation=record.observation,
            source_levels=record.source_levels,
            plan_levels=levels,
            is_new_plan=record.plan is not None,
        )
        horizon = len(self._plan.levels) if self._plan is not None else 1
        self._last_frame = draw_frame(filmed, schema=self._environment.schema, horizon=horizon)
        self._encode(self._last_frame)

    def to_bytes(self) -> bytes:
        """The mp4; ends the film. ValueError if it has no frame."""
        if self._last_frame is None:
            raise ValueError(f"nothing was filmed of episode {self._seed}")
        for _ in range(round(FINAL_PAUSE_S * self._rate_hz)):
            self._encode(self._last_frame)
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._file.getvalue()

    def _encode(self, picture: np.ndarray) -> None:
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))


@dataclass(frozen=True, kw_only=True)
class Tape:
    """An episode so far: what was recorded at each control step, and the moment after it."""

    environment: Rewindable
    records: list[StepRecord] = field(default_factory=list)
    moments: list[Any] = field(default_factory=list)

    @property
    def is_success(self) -> bool:
        """Whether the goal was reached."""
        return any(record.result.success for record in self.records)

    @property
    def is_over(self) -> bool:
        """Whether no step follows."""
        last = self.records[-1]
        return last.result.terminated or last.step + 1 >= self.environment.max_steps

    def add(self, record: StepRecord) -> None:
        """Take in one control step, after which the environment stands where it is now."""
        self.records.append(record)
        self.moments.append(self.environment.save())

    def film(self, seed: int) -> Film:
        """The episode's film; the environment stands at its end afterwards."""
        film = Film(self.environment, seed=seed)
        for record, moment in zip(self.records, self.moments, strict=True):
            self.environment.restore(moment)
            film.add(record)
        return film


class EpisodeFilms:
    """Films some episodes of a `roll_out`; `add` is its `on_step`.

    Of environments that can go back, half of the films show successes, the first ones, and half
    failures, fewer if there are not as many; of others, the first episodes whatever comes of them.
    """

    def __init__(
        self, environments: Sequence[Environment], *, seeds: Sequence[int], num_films: int
    ) -> None:
        """Film up to `num_films` of `seeds`; episode i runs in environment i % their number."""
        self._films: dict[int, Film] = {}
        self._tapes: dict[int, Tape] = {}
        self._rewindable: dict[int, Rewindable] = {}
        self._num_wanted = {True: num_films - num_films // 2, False: num_films // 2}
        for index, seed in enumerate(seeds):
            environment = environments[index % len(environments)]
            if isinstance(environment, Rewindable):
                self._rewindable[seed] = environment
            elif index < num_films:
                self._films[seed] = Film(environment, seed=seed)

    def add(self, seed: int, record: StepRecord) -> None:
        """Take in one control step of the episode of `seed`; most are not filmed."""
        if seed in self._rewindable:
            self._tape(seed, record)
        elif seed in self._films:
            self._films[seed].add(record)

    def _tape(self, seed: int, record: StepRecord) -> None:
        if record.step == 0 and len(self._tapes) < MAX_TAPES and any(self._num_wanted.values()):
            self._tapes[seed] = Tape(environment=self._rewindable[seed])
        tape = self._tapes.get(seed)
        if tape is None:
            return
        tape.add(record)
        if tape.is_over:
            del self._tapes[seed]
            if self._num_wanted[tape.is_success]:
                self._num_wanted[tape.is_success] -= 1
                self._films[seed] = tape.film(seed)

    def write(self, folder: Path) -> list[Path]:
        """Write `rollout_<seed>.mp4` and `levels_<seed>.png` per film; returns the films' paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for seed, film in sorted(self._films.items()):
            path = folder / f"rollout_{seed}.mp4"
            path.write_bytes(film.to_bytes())
            draw_levels(film.levels, folder / f"levels_{seed}.png")
            paths.append(path)
        return paths
