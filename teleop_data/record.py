"""forcing-record: a person or a script drives an environment, and every step of it is kept.

    forcing-record output=data/pick_place.zarr task=pick_place teleoperator=keyboard
    forcing-record output=data/pick_place.zarr task=pick_place num_episodes=50    a scripted expert

The same command goes on where the last one ended, however that was: what it left behind is taken
in first (num_episodes=0: only that). A task is a name in sim/configs/task or a YAML of your own
(--config-dir=my_configs, with my_configs/task/mine.yaml); task.environment._target_ names any
Environment.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, cast, runtime_checkable

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from teleop_data.background_writer import BackgroundWriter
from teleop_data.clock import MonotonicClock
from teleop_data.environment import Environment
from teleop_data.operator import Automatic, Operator
from teleop_data.recording_loop import RecordingLoop
from teleop_data.recording_store import RecordingStore
from teleop_data.step_watch import StepWatch
from teleop_data.teleoperator import Teleoperator

SWITCH_S = 5e-4  # the writing threads let the loop go on within this time, not Python's 5 ms
DISTRIBUTION = "lerobot_policy_diffusion_forcing"


class Codec(Enum):
    """How pictures are compressed; both lose nothing."""

    zstd = "zstd"
    bitshuffle = "bitshuffle"


@dataclass
class RecordConfig:
    """What `forcing-record` is told.

    Attributes:
        output: path of the store: a new one, or one recorded with the same features, to go on with.
        task: name, `environment` and perhaps `expert`, each with a `_target_`.
        teleoperator: who drives: `_target_` and arguments, made with the environment; a name in
            configs/teleoperator.
        operator: who starts and keeps; null = the teleoperator itself, if it can, else a script
            that keeps what reached the goal.
        num_episodes: kept ones to have in the end, with those that are there; null = until the
            operator stops.
        first_seed: of the first episode of a new store; seeds count up.
        buffer_s: the disk may fall behind by so much before steps are lost.
        patience_s: a control step of the environment that takes longer ends the session.
        camera_codec: of a new store: zstd is fast, bitshuffle is smaller where cameras are noisy.
    """

    output: str = MISSING
    task: dict[str, Any] = MISSING
    teleoperator: dict[str, Any] = MISSING
    operator: dict[str, Any] | None = None
    num_episodes: int | None = None
    first_seed: int = 0
    buffer_s: float = 2.0
    patience_s: float = 5.0
    camera_codec: Codec = Codec.zstd


class RecordingError(RuntimeError):
    """A session that could not go on; what was recorded is kept."""


@runtime_checkable
class _Closable(Protocol):
    def close(self) -> None: ...


def run(config: RecordConfig) -> None:
    """Record what `config` says.

    Raises:
        ValueError: it cannot be, or what is at `output` holds other features.
        OSError: the environment failed; what was recorded is kept, marked as interrupted.
        RecordingError: the disk failed; what was recorded before is kept.
    """
    with ExitStack() as stack:
        store = stack.enter_context(
            closing(
                RecordingStore(
                    Path(config.output),
                    provenance=provenance_of(config),
                    camera_codec=config.camera_codec.value,
                    report=say,
                )
            )
        )
        store.recover()
        if config.num_episodes is None or store.num_finished < config.num_episodes:
            _record(config, store, stack=stack)
    say(f"{store.path}: {store.num_episodes} episodes, {store.num_finished} of them finished")


def _record(config: RecordConfig, store: RecordingStore, *, stack: ExitStack) -> None:
    """Make what takes part and let the loop run; `stack` closes it."""
    stack.callback(sys.setswitchinterval, sys.getswitchinterval())
    sys.setswitchinterval(SWITCH_S)
    environment: Environment = stack.enter_context(closing(instantiate(config.task["environment"])))
    teleoperator: Teleoperator = instantiate(config.teleoperator, environment)
    operator = operator_of(config, teleoperator)
    parts = [teleoperator] if operator is teleoperator else [teleoperator, operator]
    for part in parts:
        if isinstance(part, _Closable):
            stack.enter_context(closing(part))
    rate_hz = environment.schema.rate_hz
    writer = BackgroundWriter(store, capacity=math.ceil(config.buffer_s * rate_hz), report=say)
    try:
        with StepWatch(config.patience_s, report=say) as watch, stop_on_signal() as stopped:
            loop = RecordingLoop(
                environment,
                teleoperator,
                operator=operator,
                writer=writer,
                watch=watch,
                clock=MonotonicClock(),
                stopped=stopped,
                report=say,
            )
            store.expect(loop.schema)
            loop.run(
                first_seed=store.next_seed(config.first_seed),
                num_kept=store.num_finished,
                num_episodes=config.num_episodes,
            )
    finally:
        writer.close()
    if writer.failure:
        raise RecordingError(writer.failure)


def operator_of(config: RecordConfig, teleoperator: Teleoperator) -> Operator:
    """The operator that `config` names; else the teleoperator, if it is one; else a script."""
    if config.operator is not None:
        return instantiate(config.operator)
    if hasattr(teleoperator, "poll") and hasattr(teleoperator, "tell"):
        return cast(Operator, teleoperator)
    return Automatic()


def provenance_of(config: RecordConfig) -> dict[str, Any]:
    """Where the episodes of `config` come from."""
    settings = {"environment": config.task["environment"], "teleoperator": config.teleoperator}
    return {
        "command": shlex.join(["forcing-record", *sys.argv[1:]]),
        "version": importlib.metadata.version(DISTRIBUTION),
        "task": config.task.get("name", ""),
        "settings": json.loads(json.dumps(settings)),  # as the store will give it back
        "first_seed": config.first_seed,
    }


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGINT or SIGTERM sets; a second one ends the process as it always does."""
    stopped = threading.Event()
    numbers: list[int] = [signal.SIGINT, signal.SIGTERM]
    before = {number: signal.getsignal(number) for number in numbers}

    def stop(number: int, _frame: FrameType | None) -> None:
        stopped.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say(text: str) -> None:
    """Print one line at once; from any thread."""
    print(text + "\n", end="", flush=True)


def main() -> None:
    """Console entry point: reads the command line, exits with a message on misuse."""
    ConfigStore.instance().store(name="record_schema", node=RecordConfig)
    hydra.main(version_base="1.3", config_path="configs", config_name="record")(_main)()


def _main(config: Any) -> None:
    try:
        run(OmegaConf.to_object(config))  # pyright: ignore[reportArgumentType]
    except MissingMandatoryValue as error:
        sys.exit(f"forcing-record: {error.full_key} is not given; say {error.full_key}=...")
    except InstantiationException as error:  # Hydra's, around what a constructor refused
        sys.exit(f"forcing-record: {error.__cause__ or error}")
    except (OSError, ValueError, KeyError, RecordingError) as error:
        sys.exit(f"forcing-record: {error}")


if __name__ == "__main__":
    main()
