"""forcing-generate: a scripted expert demonstrates a task into a replay buffer.

    forcing-generate output=data/pick_place.zarr num_episodes=200

Episode i is the i-th seed from `first_seed` on with which the expert succeeds, whatever the number
of processes; failures are counted and left out. Interrupted (Ctrl-C, a crash), the store keeps
every finished episode, and the same command goes on where it was; with a greater `num_episodes` it
extends what is there.
"""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue
from tqdm import tqdm

from sim.demonstrations.demonstrator import Demonstration, Demonstrator
from sim.demonstrations.parallel_episodes import WorkerError, parallel_episodes
from sim.demonstrations.store import DemonstrationStore
from sim.perturbations.conditions import PerturbationConfig

log = logging.getLogger(__name__)

DISTRIBUTION = "lerobot_policy_diffusion_forcing"
GO_ON = "Every finished demonstration is kept; the same command goes on where it was"
EPISODES_A_PROCESS = 8  # fewer are not worth the start of a process, which takes seconds
FAILURES_ALLOWED = 10  # beyond one for each demonstration wanted
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class ExpertError(RuntimeError):
    """An expert that fails too often to demonstrate its task."""


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
        output: path of the store: a new one, or one of the same call, to go on with.
        num_episodes: demonstrations to keep, with those that are there.
        first_seed: seed of the first attempt; evaluate on other seeds than you demonstrate.
        num_processes: that run episodes; None means one a core, if each gets 8 episodes or more.
        task: from the group sim/configs/task.
        perturbation: from the group sim/configs/perturbation: of the world and of what is seen in
            it while the expert, who does not look, demonstrates; the truth is recorded.
    """

    output: str = MISSING
    num_episodes: int = 200
    first_seed: int = 0
    num_processes: int | None = None
    task: TaskConfig = MISSING
    perturbation: PerturbationConfig = field(default_factory=PerturbationConfig)


def run(config: GenerateConfig) -> None:
    """Generate what `config` says.

    Raises:
        ValueError: it cannot be, or what is at `output` belongs to another call, is in use by one
            or is damaged.
        ExpertError: more than `num_episodes` + 10 attempts failed; what succeeded is kept.
        WorkerError: a process died; what was finished is kept.
    """
    began_s = time.monotonic()
    with DemonstrationStore(Path(config.output), provenance=provenance_of(config)) as store:
        _go_on(store, config, began_s=began_s)


def _go_on(store: DemonstrationStore, config: GenerateConfig, *, began_s: float) -> None:
    """Append what `store` lacks of what `config` wants."""
    num_there, steps_there = store.num_episodes, store.num_steps
    if num_there > config.num_episodes:
        raise ValueError(
            f"{store.path} holds {num_there} demonstrations, more than "
            f"num_episodes={config.num_episodes}; none is ever removed: choose another output"
        )
    if num_there == config.num_episodes:
        log.info("%s has its %d demonstrations already: nothing to do", store.path, num_there)
        return
    with ExitStack() as stack:
        make = functools.partial(
            Demonstrator, config.task.environment, config.task.expert or {}, config.perturbation
        )
        demonstrator = stack.enter_context(closing(make()))
        store.expect(demonstrator.schema)
        seeds = itertools.count(store.next_seed)
        demonstrations: Iterable[Demonstration] = map(demonstrator, seeds)
        num_processes = processes(config, num_missing=config.num_episodes - num_there)
        if num_processes > 1:
            parallel = parallel_episodes(make, seeds, num_processes=num_processes)
            demonstrations = stack.enter_context(closing(parallel))
        for demonstration in successes(
            demonstrations,
            num_episodes=config.num_episodes,
            num_there=num_there,
            num_failed=store.num_failed,
        ):
            store.append(demonstration)
    seconds = time.monotonic() - began_s
    log.info(
        "%s: %d demonstrations, %d control steps, %.1f MB; %d failed attempts left out; "
        "%d made in %.1f s, %.0f control steps a second",
        *(store.path, store.num_episodes, store.num_steps, store.num_bytes / 1e6),
        *(store.num_failed, store.num_episodes - num_there, seconds),
        (store.num_steps - steps_there) / seconds,
    )


def provenance_of(config: GenerateConfig) -> dict[str, Any]:
    """Where the demonstrations of `config` come from. ValueError if there cannot be any."""
    task = config.task
    if task.expert is None:
        raise ValueError(
            f"task {task.name!r} has no scripted expert to demonstrate it; choose a task that has "
            "one (task=pick_place), or record a person"
        )
    for name in ("num_episodes", "num_processes"):
        if (number := getattr(config, name)) is not None and number < 1:
            raise ValueError(f"{name} is {number}, expected at least 1")
    settings: dict[str, Any] = {"environment": task.environment, "expert": task.expert}
    if config.perturbation.kind != "none":
        settings["perturbation"] = asdict(config.perturbation)
    return {
        "command": shlex.join(["forcing-generate", *sys.argv[1:]]),
        "version": importlib.metadata.version(DISTRIBUTION),
        "task": task.name,
        "demonstrator": str(task.expert["_target_"]),
        "settings": json.loads(json.dumps(settings)),  # as the store will give it back
        "first_seed": config.first_seed,
    }


def processes(config: GenerateConfig, *, num_missing: int) -> int:
    """How many processes run the `num_missing` episodes."""
    if config.num_processes is not None:
        return min(config.num_processes, num_missing)
    return max(1, min(os.cpu_count() or 1, num_missing // EPISODES_A_PROCESS))


def successes(
    demonstrations: Iterable[Demonstration],
    *,
    num_episodes: int,
    num_there: int = 0,
    num_failed: int = 0,
) -> Iterator[Demonstration]:
    """The demonstrations that succeeded, until there are `num_episodes` of them.

    Shows a progress bar. `num_there` and `num_failed` are the successes and failures of earlier
    calls, which count as if they were of this one.

    Raises:
        ExpertError: more than `num_episodes` + 10 have failed.
    """
    began_s, num_kept = time.monotonic(), num_there
    with tqdm(total=num_episodes, initial=num_there, bar_format=BAR) as progress:
        for demonstration in demonstrations:
            if demonstration.summary.success:
                yield demonstration
                num_kept += 1
            else:
                num_failed += 1
            a_minute = (num_kept - num_there) / (time.monotonic() - began_s) * 60
            progress.set_postfix_str(f"{a_minute:.1f} a minute, {num_failed} failed", refresh=False)
            progress.update(num_kept - progress.n)
            if num_kept == num_episodes:
                return
            if num_failed > num_episodes + FAILURES_ALLOWED:
                raise ExpertError(
                    f"{num_failed} attempts failed against {num_kept} that succeeded: this expert "
                    "does not solve this environment"
                )


def main() -> None:
    """Console entry point: reads the command line, exits with a message on misuse."""
    ConfigStore.instance().store(name="generate_schema", node=GenerateConfig)
    hydra.main(version_base="1.3", config_path="configs", config_name="generate_demonstrations")(
        _main
    )()


def _main(config: Any) -> None:
    try:
        run(OmegaConf.to_object(config))  # pyright: ignore[reportArgumentType]
    except MissingMandatoryValue as error:
        sys.exit(f"forcing-generate: {error.full_key} is not given; say {error.full_key}=...")
    except (OSError, KeyError, ValueError, ExpertError) as error:
        sys.exit(f"forcing-generate: {error}")
    except WorkerError as error:
        sys.exit(f"forcing-generate: {error}. {GO_ON}")
    except KeyboardInterrupt:
        sys.exit(f"forcing-generate: stopped. {GO_ON}")


if __name__ == "__main__":
    main()
