"""forcing-demo: the whole path in one command, in some minutes on two cores.

    forcing-demo                               # demonstrations, training, live runs, evaluation
    forcing-demo output_dir=outputs/other num_demonstrations=50 num_steps=300

A scripted demonstrator shows pick and place, a policy is trained on that, drives the (simulated)
robot through real sockets with its camera and without, and is measured on many seeds. The same
command again reuses the demonstrations and the training that are there, or goes on where it was.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from deploy.children import ChildError, exit_on_signal, run_child
from deploy.live_rollouts import LiveRun, live_setup
from deploy.report import ReportContent, write_report
from teleop_data.replay_buffer import ReplayBuffer

TASK, RECIPE, CAMERA = "pick_place", "pick_place", "top"
INFERENCE = "chunk"  # of four actions: better here than rolling, see policy/EXPERIMENTS.md
FIRST_SEED = 100_000  # demonstrations have the seeds 0, 1, ...
OUTAGE = ("perturbation.start=[5,15]", "perturbation.length=10")
# (perturbation, flag): the same seeds under each
CONDITIONS = (
    ("none", "auto"),
    ("black", "auto"),
    ("black", "none"),
    ("frozen", "auto"),
    ("frozen", "none"),
)


@dataclass
class DemoConfig:
    """What `forcing-demo` is told.

    Attributes:
        output_dir: folder for everything that is written.
        num_demonstrations: episodes of the scripted demonstrator.
        num_steps: training steps, null = as the recipe says.
        num_live_episodes: over sockets, under each condition; 0 leaves that part out.
        num_episodes: evaluated in virtual time, under each condition.
        training: further arguments of forcing-train.
    """

    output_dir: str = "outputs/demo"
    num_demonstrations: int = 300
    num_steps: int | None = None
    num_live_episodes: int = 3
    num_episodes: int = 100
    training: list[str] = field(default_factory=list)


def run(config: DemoConfig) -> Path:
    """Everything, from demonstrations to the report; returns the path of `report.html`.

    Raises:
        ChildError: one of the processes failed.
        ValueError: what is in the output folder belongs to another call.
    """
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    say("1/5 demonstrations: a scripted expert carries the red object into the green ring")
    demonstrations = demonstrate(folder / "demonstrations.zarr", num=config.num_demonstrations)
    say("2/5 training: a diffusion-forcing policy imitates them, from the camera and the hand")
    checkpoint = train(folder / "training", demonstrations, config=config)
    say("3/5 live: camera, policy server and robot are processes of their own now")
    live = play_live(folder / "live", checkpoint, num_episodes=config.num_live_episodes)
    say(f"4/5 evaluation: {config.num_episodes} episodes under each condition, in virtual time")
    evaluations = evaluate(folder / "evaluation", checkpoint, num_episodes=config.num_episodes)
    say("5/5 report")
    minutes = (time.monotonic() - began_s) / 60
    html = write_report(
        folder / "report",
        ReportContent(
            title="Forcing: pick and place, with the camera and without",
            introduction=introduction(checkpoint, minutes=minutes),
            evaluations=evaluations,
            live=live,
            pictures={"Training": folder / "training" / "learning_curves.png"},
        ),
    )
    print((folder / "report" / "report.md").read_text().split("!", 1)[0])
    say(f"done in {minutes:.1f} minutes; open {html} in a browser")
    return html


def say(words: str) -> None:
    """A headline on the terminal."""
    print(f"\n== {words}", flush=True)


def demonstrate(path: Path, *, num: int) -> Path:
    """`num` demonstrations at `path`. ValueError if another number of them is there."""
    if path.exists():
        there = ReplayBuffer.open(path).num_episodes
        if there != num:
            raise ValueError(
                f"{path} holds {there} demonstrations, {num} are wanted; choose another "
                f"output_dir, or say num_demonstrations={there}"
            )
        print(f"{path} is there already, with {there} demonstrations: reused")
        return path
    # of another name until all are there, so that what training finds is never a part of them; the
    # command goes on by itself with what a call that was cut off has left
    partial = path.with_name(path.name + ".partial")
    run_child(
        "sim.generate_demonstrations", f"task={TASK}", f"output={partial}", f"num_episodes={num}"
    )
    return partial.rename(path)


def train(folder: Path, demonstrations: Path, *, config: DemoConfig) -> Path:
    """The trained checkpoint in `folder`, made now, finished, or found."""
    checkpoint = folder / "checkpoint"
    if is_trained(checkpoint, num_steps=config.num_steps):
        print(f"{checkpoint} is there already, trained to its end: reused")
        return checkpoint
    if checkpoint.exists():
        print(f"{checkpoint} is there, but not trained to its end: training goes on")
    steps = [] if config.num_steps is None else [f"training.num_steps={config.num_steps}"]
    run_child(
        "policy.train",
        f"recipe={RECIPE}",
        f"data.path={demonstrations}",
        f"output_dir={folder}",
        *steps,
        *config.training,
    )
    return checkpoint


def is_trained(checkpoint: Path, *, num_steps: int | None) -> bool:
    """Whether a training of `num_steps` (None: as many as it was told) has ended there."""
    try:
        provenance = json.loads((checkpoint / "provenance.json").read_text())
    except FileNotFoundError:
        return False
    return provenance["step"] == (num_steps or provenance["settings"]["num_steps"])


def play_live(folder: Path, checkpoint: Path, *, num_episodes: int) -> Mapping[str, Sequence[Path]]:
    """Results files of live episodes, by name of the condition; flags under the same seeds."""
    if num_episodes < 1:
        return {}
    seeds = range(FIRST_SEED, FIRST_SEED + num_episodes)
    runs = {
        "camera healthy": LiveRun(name="healthy", seeds=seeds),
        "camera covered for a second, flagged": LiveRun(name="flagged", seeds=seeds, cover="black"),
        "camera covered for a second, believed": LiveRun(
            name="believed", seeds=seeds, cover="black", flag="none"
        ),
    }
    results = {}
    with live_setup(
        checkpoint=checkpoint, inference=INFERENCE, camera=CAMERA, task=TASK, folder=folder
    ) as setup:
        for name, live_run in runs.items():
            print(f"-- {name}", flush=True)
            results[name] = setup.play(live_run)
    return results


def evaluate(folder: Path, checkpoint: Path, *, num_episodes: int) -> list[Path]:
    """Folders with results, one per condition."""
    folders = []
    for perturbation, flag in CONDITIONS:
        output = folder / ("clean" if perturbation == "none" else f"{perturbation}_{flag}")
        run_child(
            "deploy.evaluate",
            f"checkpoint={checkpoint}",
            f"inference={INFERENCE}",
            f"num_episodes={num_episodes}",
            f"first_seed={FIRST_SEED}",
            f"perturbation={perturbation}",
            *OUTAGE,
            f"flag={flag}",
            f"output_dir={output}",
        )
        folders.append(output)
    return folders


def introduction(checkpoint: Path, *, minutes: float) -> str:
    """What the report says about the whole run."""
    provenance = json.loads((checkpoint / "provenance.json").read_text())
    return (
        f"Trained on {provenance['training_episodes']} demonstrations for {provenance['step']} "
        "steps. While its camera is covered, the policy can be told so (the camera's tokens get "
        "noise level 1, with the noise really added), or believe what arrives. An outage begins "
        "between control steps 5 and 15 and lasts 10. Chunks of four actions from four network "
        f"calls. This call took {minutes:.1f} minutes."
    )


def main() -> None:
    """Console entry point: reads the command line, exits with a message if a part fails."""
    ConfigStore.instance().store(name="demo_schema", node=DemoConfig)
    hydra.main(version_base="1.3", config_path="configs", config_name="demo")(_main)()


def _main(config: Any) -> None:
    try:
        with exit_on_signal():
            run(OmegaConf.to_object(config))  # pyright: ignore[reportArgumentType]
    except (ChildError, ValueError) as error:
        sys.exit(f"forcing-demo: {error}")
    except KeyboardInterrupt:
        sys.exit("forcing-demo: stopped; the same command goes on where it was")


if __name__ == "__main__":
    main()
