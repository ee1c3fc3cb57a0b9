"""Entry point `forcing-evaluate`: many seeded rollouts of a checkpoint, in virtual time.

    forcing-evaluate checkpoint=<folder> inference=rolling num_episodes=100 first_seed=100000 \
        perturbation=black_2s perturbation.phase=during_contact flag=auto output_dir=<folder>

Writes `results.json` (see `deploy.results`) and films of the first few episodes with the plan's
noise levels drawn in. Same call, same numbers.
"""

from __future__ import annotations

import functools
import json
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import hydra
import torch
from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate
from omegaconf import MISSING, OmegaConf

from deploy.results import summarize_episodes
from deploy.rollout import Conditions, roll_out
from deploy.video import EpisodeFilms
from policy.checkpoint import check_schema, load_policy, read_description
from sim.perturbations.conditions import PerturbationConfig, perturbations_of
from sim.task_descriptions import describe_task
from teleop_data.environment import Environment


class Inference(Enum):
    """How the policy plans."""

    chunk = "chunk"
    rolling = "rolling"


class Marking(Enum):
    """How a flagged source is presented to the network, see `policy.history.Mark`."""

    noise = "noise"
    flag = "flag"
    zeros = "zeros"
    drop = "drop"


class Flagging(Enum):
    """Who tells the policy that a source is bad."""

    none = "none"
    oracle = "oracle"
    auto = "auto"


@dataclass
class EvaluateConfig:
    """What `forcing-evaluate` is told.

    Attributes:
        checkpoint: folder that forcing-train wrote.
        inference: chunk or rolling, as the checkpoint's config.json describes them.
        planning: arguments of that mode, instead of the checkpoint's own.
        task: name in sim/configs/task; "" is the checkpoint's own.
        num_episodes, first_seed: episodes have the seeds first_seed, first_seed + 1, ...
        perturbation: a condition of sim/configs/perturbation, each part of which can be overridden.
        flag: none believes a bad source, oracle knows, auto finds out as the policy server does.
        mark: what becomes of a flagged source; anything but noise is to compare with.
        delay: control steps until a plan can be used.
        batch_size: episodes carried together.
        num_videos: episodes filmed; half of them failures, if the environment can go back to them.
        num_threads: torch's; the results do not depend on it beyond rounding.
        output_dir: folder for what is written.
    """

    checkpoint: str = MISSING
    inference: Inference = Inference.rolling
    planning: dict[str, Any] = field(default_factory=dict)
    task: Any = ""  # a name; the command line gives the node of that name
    num_episodes: int = 100
    first_seed: int = 100_000
    perturbation: PerturbationConfig = field(default_factory=PerturbationConfig)
    flag: Flagging = Flagging.auto
    mark: Marking = Marking.noise
    delay: int = 0
    batch_size: int = 50
    num_videos: int = 2
    num_threads: int = 2
    output_dir: str = MISSING


ConfigStore.instance().store(name="evaluate_schema", node=EvaluateConfig)


@hydra.main(version_base=None, config_path="configs", config_name="evaluate")
def main(config: EvaluateConfig) -> None:
    """Evaluate as the config says; exits with a message if it cannot."""
    plain = cast(EvaluateConfig, OmegaConf.to_object(config))  # type: ignore[arg-type]
    if isinstance(plain.task, dict):
        plain.task = plain.task["name"]
    try:
        results = evaluate(plain, command=shlex.join(["forcing-evaluate", *sys.argv[1:]]))
    except (KeyError, ValueError) as error:
        sys.exit(f"error: {error}")
    low, high = results["success_interval"]
    print(
        f"mean max reward {results['mean_max_reward']:.3f}, success {results['success_rate']:.2f} "
        f"[{low:.2f}, {high:.2f}], {results['network_calls_per_step']:.2f} network calls a step, "
        f"{results['num_episodes']} episodes: {Path(plain.output_dir) / 'results.json'}"
    )


def evaluate(config: EvaluateConfig, *, command: str) -> dict[str, Any]:
    """Run the episodes, write the output folder, return what `results.json` holds."""
    if config.num_episodes < 1 or config.batch_size < 1:
        raise ValueError(
            f"num_episodes and batch_size must be at least 1, got {config.num_episodes} and "
            f"{config.batch_size}"
        )
    torch.set_num_threads(config.num_threads)
    began_s = time.monotonic()
    policy = load_policy(
        config.checkpoint,
        inference=config.inference.value,
        mark=config.mark.value,
        **config.planning,
    )
    task = config.task or read_description(config.checkpoint).task
    make = environment_maker(task)
    environments = [make() for _ in range(min(config.batch_size, config.num_episodes))]
    check_schema(policy.schema, offered=environments[0].schema)
    offered = environments[0].schema.select(policy.schema.names)
    perturb = functools.partial(perturbations_of, config.perturbation, schema=offered)
    terms = [perturbation.terms.to_json() for perturbation in perturb()]
    seeds = list(range(config.first_seed, config.first_seed + config.num_episodes))
    films = EpisodeFilms(environments, seeds=seeds, num_films=config.num_videos)
    episodes = roll_out(
        policy,
        environments,
        seeds=seeds,
        conditions=Conditions(perturb=perturb, flag=config.flag.value, delay=config.delay),
        on_step=films.add,
    )
    results = {
        "command": command,
        "version": version("lerobot_policy_diffusion_forcing"),
        "checkpoint": config.checkpoint,
        "task": task,
        "inference": config.inference.value,
        "planning": repr(policy.planning),
        "perturbation": config.perturbation.label,
        "outage": terms[0] if terms else None,
        "flag": config.flag.value,
        "mark": config.mark.value,
        "delay": config.delay,
        **summarize_episodes(episodes, rate_hz=policy.schema.rate_hz),
        "wall_time_s": time.monotonic() - began_s,
    }
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    films.write(folder)
    for environment in environments:
        environment.close()
    return results


def environment_maker(task: str) -> Callable[[], Environment]:
    """A maker of the environment that `sim/configs/task/<task>.yaml` describes.

    Raises:
        ValueError: there is no such task; the message lists those there are.
    """
    return functools.partial(instantiate, describe_task(task).environment, _convert_="all")


if __name__ == "__main__":
    main()
