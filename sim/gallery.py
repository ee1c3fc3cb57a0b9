"""forcing-gallery: pictures of every arm task and of every perturbation, for people.

    forcing-gallery output_dir=outputs/gallery

Writes tasks.png (a demonstration of each arm task, and what its cameras see), perturbations.png
(one moment of a demonstration under every named condition), and index.html with both.
"""

from __future__ import annotations

import html
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from sim.arm.environment import ArmEnvironment
from sim.perturbations.conditions import condition_names, perturbed, read_condition
from sim.perturbations.environment import PerturbedEnvironment
from sim.task_descriptions import arm_task_names, describe_task
from teleop_data.environment import Environment, Observation

NUM_FRAMES = 5  # of each demonstration
PANELS_A_ROW = 6  # of perturbations
LOOK_STEP = 22  # when the perturbations are looked at: the hand is at work by then
DPI = 110


@dataclass
class GalleryConfig:
    """What `forcing-gallery` is told.

    Attributes:
        output_dir: folder for the pictures; made if it is not there.
        seed: of the demonstrations.
        task: the arm task under which the perturbations are shown.
        pixels: side of the cameras' pictures.
    """

    output_dir: str = MISSING
    seed: int = 3
    task: str = "swap"
    pixels: int = 96


@dataclass(frozen=True)
class Frame:
    """One control step: the picture for people, the observation, what is being done."""

    picture: np.ndarray
    observation: Observation
    step: int
    subgoal: str


def run(config: GalleryConfig) -> Path:
    """Write the pictures; returns the path of index.html. ValueError for an unknown task."""
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    tasks = {
        name: demonstration(name, seed=config.seed, pixels=config.pixels)
        for name in arm_task_names(variants=False)
    }
    draw_tasks(tasks).savefig(folder / "tasks.png", dpi=DPI)
    conditions = {
        name: moment(name, task=config.task, seed=config.seed, pixels=config.pixels)
        for name in condition_names()
    }
    draw_perturbations(conditions).savefig(folder / "perturbations.png", dpi=DPI)
    page = folder / "index.html"
    page.write_text(page_of(list(tasks), list(conditions)))
    return page


def demonstration(task: str, *, seed: int, pixels: int) -> list[Frame]:
    """Evenly spaced frames of a demonstration, first and last included."""
    environment, expert = make(task, pixels=pixels)
    frames = play(environment, expert, seed=seed, wanted=None)
    chosen = np.linspace(0, len(frames) - 1, NUM_FRAMES).round().astype(int)
    # drawing is slow, so the episode is played again for the pictures
    frames = play(environment, expert, seed=seed, wanted=set(chosen.tolist()))
    environment.close()
    return [frames[index] for index in chosen]


def moment(condition: str, *, task: str, seed: int, pixels: int) -> Observation:
    """What arrives at one step of a demonstration of `task` under `condition`."""
    environment, expert = make(task, pixels=pixels)
    config = read_condition(condition)
    config.start = [LOOK_STEP - 3, LOOK_STEP - 3]
    under = perturbed(environment, config)
    observation = under.reset(seed)
    expert.reset(seed)
    # a source that fails at random is looked at when it does
    for step in range(LOOK_STEP + 10):
        if step >= LOOK_STEP and (not isinstance(under, PerturbedEnvironment) or is_bad(under)):
            break
        observation = under.step(expert.act(observation)).observation
    under.close()
    return observation


def is_bad(environment: PerturbedEnvironment) -> bool:
    """Whether something is wrong just now."""
    sight = environment.sight
    return sight.is_world_perturbed or any(level > 0 for level in sight.truth.values())


def make(task: str, *, pixels: int) -> tuple[ArmEnvironment, Any]:
    """The environment of an arm task and its demonstrator."""
    description = describe_task(task)
    environment = instantiate(description.environment, pixels=pixels)
    return environment, instantiate(description.expert, environment)


def play(
    environment: Environment, expert: Any, *, seed: int, wanted: set[int] | None
) -> list[Frame]:
    """A whole episode; pictures for people are drawn at the steps `wanted` only."""
    frames, result = [], None
    observation = environment.reset(seed)
    expert.reset(seed)
    while result is None or not result.terminated:
        action, step = expert.act(observation), len(frames)
        subgoal = expert.facts()["subgoals"][int(expert.labels()["subgoal"][0])]
        nothing = np.zeros((1, 1, 3), np.uint8)
        picture = environment.render() if wanted is not None and step in wanted else nothing
        frames.append(Frame(picture, observation, step, subgoal))
        result = environment.step(action)
        observation = result.observation
    return frames


def draw_tasks(tasks: dict[str, list[Frame]]) -> Figure:
    """A row a task, a column a moment; below each picture what the two cameras see."""
    num_rows = 2 * len(tasks)
    figure = Figure(figsize=(2.2 * NUM_FRAMES, 3.45 * len(tasks)), layout="constrained")
    axes = figure.subplots(num_rows, NUM_FRAMES, height_ratios=[2, 1] * len(tasks))
    for row, (task, frames) in enumerate(tasks.items()):
        for column, frame in enumerate(frames):
            above, below = axes[2 * row, column], axes[2 * row + 1, column]
            show(above, frame.picture, title=f"{frame.step}: {frame.subgoal}")
            show(below, side_by_side(frame.observation))
        axes[2 * row, 0].set_ylabel(task, fontsize=11)
    return figure


def draw_perturbations(conditions: dict[str, Observation]) -> Figure:
    """A panel a condition: the front camera's picture and the wrist camera's."""
    num_rows = -(-len(conditions) // PANELS_A_ROW)
    figure = Figure(figsize=(2.6 * PANELS_A_ROW, 1.6 * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, PANELS_A_ROW, squeeze=False).ravel()
    for panel, (name, observation) in zip(axes, conditions.items(), strict=False):
        show(panel, side_by_side(observation), title=name)
    for panel in axes[len(conditions) :]:
        panel.set_axis_off()
    return figure


def side_by_side(observation: Observation) -> np.ndarray:
    """(H, 2 W + gap, 3) uint8, front and wrist."""
    front, wrist = observation["front"], observation["wrist"]
    gap = np.full((len(front), max(len(front) // 24, 1), 3), 255, np.uint8)
    return np.concatenate([front, gap, wrist], axis=1)


def show(axes: Axes, picture: np.ndarray, *, title: str = "") -> None:
    """Draw `picture` without ticks."""
    axes.imshow(picture, interpolation="nearest")
    axes.set_title(title, fontsize=8)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def page_of(tasks: list[str], conditions: list[str]) -> str:
    """The HTML page around the two pictures."""
    parts = (("tasks", "Tasks", tasks), ("perturbations", "Perturbations", conditions))
    body = "\n".join(
        f"<h2>{title}</h2>\n<p>{html.escape(', '.join(names))}</p>\n"
        f'<img src="{file}.png" alt="{title.lower()}" style="max-width: 100%">'
        for file, title, names in parts
    )
    head = '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Forcing: gallery</title>'
    return f'{head}\n<body style="font-family: sans-serif; margin: 2em">\n{body}\n</body></html>\n'


def main() -> None:
    """Console entry point: reads the command line, exits with a message on misuse."""
    ConfigStore.instance().store(name="gallery_schema", node=GalleryConfig)
    hydra.main(version_base="1.3", config_path="configs", config_name="gallery")(_main)()


def _main(config: Any) -> None:
    try:
        print(run(OmegaConf.to_object(config)))  # pyright: ignore[reportArgumentType]
    except MissingMandatoryValue as error:
        sys.exit(f"forcing-gallery: {error.full_key} is not given; say {error.full_key}=...")
    except (ValueError, KeyError) as error:
        sys.exit(f"forcing-gallery: {error}")


if __name__ == "__main__":
    main()
