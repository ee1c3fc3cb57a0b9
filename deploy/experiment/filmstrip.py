"""Film strips: eight moments of an episode in one picture, read like text.

Each moment is a frame of the film, with what the policy saw and all noise levels in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from deploy.experiment.measured import Experiment, Measured
from deploy.experiment.plan import CLEAN
from deploy.video import FINAL_PAUSE_S

NUM_MOMENTS, NUM_COLUMNS = 8, 4
MOMENT_SIZE = (480, 384)  # width, height; a frame has 640 x 512


@dataclass(frozen=True, kw_only=True)
class Filmed:
    """A film that was chosen for the report."""

    cell: Measured
    episode: dict[str, Any]
    path: Path


def chosen_films(experiment: Experiment) -> Iterator[Filmed]:
    """A typical success and a typical failure of every filmed cell that has them.

    Typical: of the films there are, the one whose length until it was done, or whose reward if it
    never was, is nearest to the median of all episodes of the cell that ended alike.
    """
    for cell in experiment.cells:
        films = {
            int(path.stem.removeprefix("rollout_")): path
            for path in cell.folder.glob("rollout_*.mp4")
            if re.fullmatch(r"rollout_\d+", path.stem)
        }
        for is_success in (True, False):
            alike = [row for row in cell.results["episodes"] if row["success"] == is_success]
            filmed = [row for row in alike if row["seed"] in films]
            if filmed:
                middle = float(np.median([_measure(row) for row in alike]))
                row = min(filmed, key=lambda row: abs(_measure(row) - middle))
                yield Filmed(cell=cell, episode=row, path=films[row["seed"]])


def _measure(row: dict[str, Any]) -> float:
    if not row["success"]:
        return float(row["max_reward"])
    done = row["facts"].get("done_step")
    return float(row["success_step"] if done is None else done)


def draw_strip(film: Path, path: Path) -> None:
    """Write the picture of `film` to `path`."""
    frames = moments(film)
    width, height = MOMENT_SIZE
    num_rows = -(-len(frames) // NUM_COLUMNS)
    strip = Image.new("RGB", (NUM_COLUMNS * width, num_rows * height), "white")
    for index, frame in enumerate(frames):
        row, column = divmod(index, NUM_COLUMNS)
        small = Image.fromarray(frame).resize(MOMENT_SIZE, Image.Resampling.LANCZOS)
        strip.paste(small, (column * width, row * height))
    strip.save(path, quality=80)


def moments(film: Path) -> list[np.ndarray]:
    """Up to eight frames (H, W, 3), evenly spread from the first to the last step."""
    frames: list[np.ndarray] = []
    num_still = 0  # that only show the last step for longer
    with av.open(film) as container:
        num_still = round(FINAL_PAUSE_S * float(container.streams.video[0].average_rate or 0))
        frames += [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames = frames[: max(1, len(frames) - num_still)]
    places = np.linspace(0, len(frames) - 1, min(NUM_MOMENTS, len(frames)))
    return [frames[round(place)] for place in places]


def words_of(filmed: Filmed, *, experiment: Experiment) -> str:
    """What a film shows."""
    cell, row = filmed.cell, filmed.episode
    where = "clean" if cell.condition == CLEAN else cell.condition
    flag = "" if cell.is_clean and cell.flag == "none" else f", flag {cell.flag}"
    ended = "success" if row["success"] else "failure"
    task = "" if cell.task == experiment.plan.task else f" {cell.task},"
    return f"{experiment.label(cell.policy)},{task} {where}{flag}, seed {row['seed']}: {ended}"
