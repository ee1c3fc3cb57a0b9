"""forcing-generate: a scripted expert demonstrates a task into a replay buffer.

    forcing-generate output=data/pick_place.zarr num_episodes=200

Episode i is the i-th seed from `first_seed` on with which the expert succeeds; failures are counted
and left out. Interrupted (Ctrl-C), the store keeps every finished episode.
"""

from __future__ import annotations

import importlib.metadata
import logging
import shlex
import sys
from dataclasses import dataclass
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate
from omegaconf import MISSING
from omegaconf.errors import MissingMandatoryValue
from tqdm import tqdm

from teleop_data.environment import Environment
from teleop_data.recorder import Recorder, record_episode
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.teleoperator import Teleoperator

log = logging.getLogger(__name__)

DISTRIBUTION = "lerobot_policy_diffusion_forcing"


@dataclass
class TaskConfig:
    """A task group's node: how to make the environment and who demonstrates in it.

    Attributes:
        name: of the task, for provenance and messages.
        environment: `_target_` and arguments of an Environment.
        expert: `_target_` of a Teleoperator that takes the environment; None if there is none.
    """

    name: str = MISSING
    environment: dict[str, Any] = MISSING
    expert: dict[str, Any] | None = None


@dataclass
class GenerateConfig:
    """What `forcing-generate` is told.

    Attributes:
        output: path of the new store; must not exist.
        num_episodes: demonstrations to keep.
        first_seed: seed of the first attempt; evaluate on other seeds than you demonstrate.
        task: from the group sim/configs/task.
    """

    output: str = MISSING
    num_episodes: int = 200
    first_seed: int = 0
    task: TaskConfig = MISSING


def generate_demonstrations(
    environment: Environment,
    expert: Teleoperator,
    *,
    recorder: Recorder,
    num_episodes: int,
    first_seed: int,
) -> int:
    """Record `num_episodes` successful episodes; returns how many failed and were left out.

    Raises:
        RuntimeError: more than `num_episodes` + 10 attempts failed; what succeeded is kept.
    """
    num_dropped = 0
    with tqdm(total=num_episodes, unit="demonstration") as progress:
        while progress.n < num_episodes:
            seed = first_seed + progress.n + num_dropped
            summary = record_episode(
                environment, expert, seed=seed, recorder=recorder, keep=lambda s: s.success
            )
            if summary.success:
                progress.update()
                continue
            num_dropped += 1
            progress.set_postfix(dropped=num_dropped)
            if num_dropped > num_episodes + 10:
                raise RuntimeError(
                    f"{num_dropped} attempts failed against {progress.n} that succeeded: this "
                    "expert does not solve this environment"
                )
    return num_dropped


def run(config: GenerateConfig) -> None:
    """Generate what `config` says. FileExistsError or ValueError if it cannot be."""
    task = config.task
    if task.expert is None:
        raise ValueError(
            f"task {task.name!r} has no scripted expert to demonstrate it; choose a task that has "
            "one (task=pick_place), or record a person"
        )
    if config.num_episodes < 1:
        raise ValueError(f"num_episodes is {config.num_episodes}, expected at least 1")
    environment: Environment = instantiate(task.environment)
    provenance = {
        "command": shlex.join(["forcing-generate", *sys.argv[1:]]),
        "version": importlib.metadata.version(DISTRIBUTION),
        "task": task.name,
        "demonstrator": str(task.expert["_target_"]),
        "first_seed": config.first_seed,
    }
    buffer = ReplayBuffer.create(config.output, environment.schema, provenance=provenance)
    num_dropped = generate_demonstrations(
        environment,
        instantiate(task.expert, environment),
        recorder=Recorder(buffer),
        num_episodes=config.num_episodes,
        first_seed=config.first_seed,
    )
    environment.close()
    log.info(
        "%s: %d demonstrations, %d control steps; %d failed attempts left out",
        buffer.path,
        buffer.num_episodes,
        buffer.num_steps,
        num_dropped,
    )


def main() -> None:
    """Console entry point: reads the command line, exits with a message on misuse."""
    ConfigStore.instance().store(name="generate_schema", node=GenerateConfig)
    hydra.main(version_base="1.3", config_path="configs", config_name="generate_demonstrations")(
        _main
    )()


def _main(config: Any) -> None:
    try:
        run(config)
    except MissingMandatoryValue as error:
        sys.exit(f"forcing-generate: {error.full_key} is not given; say {error.full_key}=...")
    except (FileExistsError, ValueError) as error:
        sys.exit(f"forcing-generate: {error}")


if __name__ == "__main__":
    main()
