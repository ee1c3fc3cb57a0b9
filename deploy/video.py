"""Films of rollouts: an mp4 and a picture of all noise levels for each of the first few episodes.

Frames are encoded as they come, so a film in the making is a few hundred kB whatever its length.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np

from deploy.episode import StepRecord
from deploy.film_frame import HEIGHT, WIDTH, FilmedStep, draw_frame
from deploy.level_picture import LevelHistory, draw_levels
from policy.interface import Plan
from teleop_data.environment import Environment

FINAL_PAUSE_S = 1.0  # the last frame stays, so that one sees how it ended


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


class EpisodeFilms:
    """Films the first few episodes of a `roll_out`; `add` is its `on_step`."""

    def __init__(
        self, environments: Sequence[Environment], *, seeds: Sequence[int], num_films: int
    ) -> None:
        """Film the first `num_films` of `seeds`; episode i runs in environment i % their number."""
        self._films = {
            seed: Film(environments[index % len(environments)], seed=seed)
            for index, seed in enumerate(seeds[:num_films])
        }

    def add(self, seed: int, record: StepRecord) -> None:
        """Take in one control step of the episode of `seed`; most are not filmed."""
        film = self._films.get(seed)
        if film is not None:
            film.add(record)

    def write(self, folder: Path) -> list[Path]:
        """Write `rollout_<seed>.mp4` and `levels_<seed>.png` per film; returns the films' paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for seed, film in self._films.items():
            path = folder / f"rollout_{seed}.mp4"
            path.write_bytes(film.to_bytes())
            draw_levels(film.levels, folder / f"levels_{seed}.png")
            paths.append(path)
        return paths
