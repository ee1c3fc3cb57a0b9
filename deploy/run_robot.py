"""forcing-run: drive a robot, simulated or real, with plans from a policy server.

    forcing-run task=pick_place server=tcp://127.0.0.1:5555 num_episodes=10 output=results.json

Ctrl-C ends after the running control step; the episodes before it are written.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import zmq
from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from deploy.control_loop import ControlLoop, LoopLimits
from deploy.controller import Controller
from deploy.episode import EpisodeResult, StepRecord
from deploy.frames import FramePublisher, camera_endpoints
from deploy.policy_client import PolicyClient
from deploy.safety import SafetyLimits
from deploy.start_gate import StartLimits
from deploy.stop_signal import stop_on_signal
from teleop_data.clock import MonotonicClock
from teleop_data.environment import Environment, Observation

if TYPE_CHECKING:  # it needs viser, which a robot that nobody watches need not have
    from deploy.live_view import LiveView

logger = logging.getLogger(__name__)


class FlagMode(Enum):
    """Whether bad sources are flagged to the policy."""

    auto = "auto"
    none = "none"


@dataclass
class SafetyConfig:
    """What the robot may be told; see `SafetyLimits`. null switches a check off."""

    low: list[float] | None = None
    high: list[float] | None = None
    max_change: list[float] | None = None
    max_plan_age_steps: int | None = None


@dataclass
class RunConfig:
    """What `forcing-run` is told.

    Attributes:
        task: a node of sim/configs/task; its `environment` names the robot or its simulation.
        server: the policy server's endpoint.
        publish: endpoint by camera feature, {name:endpoint, ...}, at which a simulated robot shows
            what that camera sees; a relay (forcing-stream source=relay) passes it on.
        num_episodes: how many.
        first_seed: seed of the first episode; they count up.
        flag: auto = sources in bad condition are flagged to the policy; none = it believes them.
        max_level: a plan's slot up to this noise level may be executed.
        delay: control steps that a plan is expected to take before any was measured.
        start_from: state feature that counts as the last command at the start, null = none.
        safety: what the robot may be told.
        patience_s: requests older than this are not worth answering; null = five control steps.
        connect_timeout_s: for the policy server to answer at all.
        start_timeout_s: for the first plan of an episode, which is waited for at rest.
        source_wait_s: for a source that is missing at the start, at rest.
        max_hold_s: an episode ends after holding without a break for as long.
        output: file for results as JSON, null = none.
        view_port: of a page on this machine that shows the run live, null = none.
    """

    task: dict[str, Any] = MISSING
    server: str = "tcp://127.0.0.1:5555"
    publish: Any = None  # Hydra lets nobody add a key to a typed dict
    num_episodes: int = 10
    first_seed: int = 100_000
    flag: FlagMode = FlagMode.auto
    max_level: float = 0.0
    delay: int = 1
    start_from: str | None = None
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    patience_s: float | None = None
    connect_timeout_s: float = 60.0
    start_timeout_s: float = 30.0
    source_wait_s: float = 2.0
    max_hold_s: float = 10.0
    output: str | None = None
    view_port: int | None = None


class CameraPublishers:
    """Publishes the cameras of a simulated robot, each at its own endpoint."""

    def __init__(self, endpoints: dict[str, str], environment: Environment) -> None:
        cameras = [feature.name for feature in environment.schema.with_role("camera")]
        unknown = sorted(set(endpoints) - set(cameras))
        if unknown:
            raise ValueError(f"cannot publish {unknown}; the environment's cameras are {cameras}")
        try:
            self._publishers = [FramePublisher(e, name) for name, e in endpoints.items()]
        except zmq.ZMQError as error:
            raise OSError(f"cannot publish at {sorted(endpoints.values())}: {error}") from error

    def __call__(self, observation: Observation, captured_s: float) -> None:
        """Publish the pictures of one observation."""
        for publisher in self._publishers:
            publisher.publish(observation[publisher.camera], captured_s=captured_s)

    def close(self) -> None:
        """Free the ports."""
        for publisher in self._publishers:
            publisher.close()


class _Interrupted(Exception):
    """A signal came; carries nothing."""


def run(config: RunConfig) -> list[EpisodeResult]:
    """Run the episodes, print and write their results. Errors say what was misused."""
    environment: Environment = instantiate(config.task["environment"])
    controller = Controller(
        environment.schema,
        limits=SafetyLimits(**asdict(config.safety), angles=environment.schema.action.angles),
        max_level=config.max_level,
        delay=config.delay,
        start_from=config.start_from,
    )
    publishers = CameraPublishers(camera_endpoints(config.publish, key="publish"), environment)
    client = PolicyClient(config.server, schema=environment.schema, patience_s=config.patience_s)
    view = None
    try:
        view = open_view(environment, config)
        client.connect(config.connect_timeout_s)
        loop = ControlLoop(
            environment,
            client,
            controller=controller,
            clock=MonotonicClock(),
            limits=LoopLimits(
                start=StartLimits(plan_s=config.start_timeout_s, source_s=config.source_wait_s),
                max_hold_s=config.max_hold_s,
            ),
            publish=publishers,
        )
        return run_episodes(loop, config, stopped=stop_on_signal(), view=view)
    finally:
        if view is not None:
            view.close()
        client.close()
        publishers.close()
        environment.close()


def open_view(environment: Environment, config: RunConfig) -> LiveView | None:
    """The page that shows the run, None if none is asked for.

    Raises:
        OSError: its port is taken.
        ValueError: what it needs is not installed.
    """
    if config.view_port is None:
        return None
    try:
        from deploy.live_view import LiveView
    except ModuleNotFoundError as error:
        raise ValueError(
            f"view_port={config.view_port} needs {error.name}, which is not installed: "
            "pip install 'lerobot_policy_diffusion_forcing[sim]'"
        ) from error
    title = f"{config.task.get('name', 'robot')}, {config.server}"
    view = LiveView(environment, title=title, port=config.view_port)
    print(f"view at {view.url}", flush=True)
    return view


def run_episodes(
    loop: ControlLoop,
    config: RunConfig,
    *,
    stopped: threading.Event,
    view: LiveView | None = None,
) -> list[EpisodeResult]:
    """Run the episodes one by one, each printed and written as it ends, until `stopped`."""

    def after_step(record: StepRecord) -> None:
        if view is not None:
            view.show(record)
        if stopped.is_set():
            raise _Interrupted

    results: list[EpisodeResult] = []
    print(TABLE_HEAD, flush=True)
    for episode in range(config.num_episodes):
        seed = config.first_seed + episode
        if view is not None:
            view.start_episode(seed)
        try:
            result = loop.run_episode(
                episode=episode,
                seed=seed,
                flag="none" if config.flag is FlagMode.none else "auto",
                on_step=after_step,
            )
        except _Interrupted:
            logger.warning("stopped in episode %d, which does not count", episode)
            break
        results.append(result)
        print(table_row(result), flush=True)
        if config.output is not None:
            write_results(results, config, path=Path(config.output))
    return results


TABLE_HEAD = (
    "seed     ending         steps  reward  newest  continued  holds  delay p99  round trip p50"
)


def table_row(result: EpisodeResult) -> str:
    """One line of the table that `run` prints."""
    row = result.statistics.to_json()
    return (
        f"{result.seed:<8} {result.ending:<13} {result.num_steps:>6} {result.max_reward:>7.3f} "
        f"{row['num_newest']:>7} {row['num_continued']:>10} {row['num_holds']:>6} "
        f"{row['delay_steps']['p99']:>10.0f} {1000 * row['round_trip_s']['p50']:>12.1f} ms"
    )


def write_results(results: list[EpisodeResult], config: RunConfig, *, path: Path) -> None:
    """Write `path` anew: the arguments, a summary, a row per episode."""
    arguments = asdict(config) | {"flag": config.flag.value}
    summary = {
        "num_episodes": len(results),
        "success_rate": sum(r.is_success for r in results) / len(results),
        "mean_max_reward": sum(r.max_reward for r in results) / len(results),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"arguments": arguments, **summary, "episodes": [r.to_json() for r in results]}
    path.write_text(json.dumps(document, indent=2) + "\n")


def main() -> None:
    """Console entry point: reads the command line, exits with a message on misuse."""
    ConfigStore.instance().store(name="run_schema", node=RunConfig)
    hydra.main(version_base="1.3", config_path="configs", config_name="run_robot")(_main)()


def _main(config: Any) -> None:
    try:
        run(OmegaConf.to_object(config))  # pyright: ignore[reportArgumentType]
    except MissingMandatoryValue as error:
        sys.exit(f"forcing-run: {error.full_key} is not given; say {error.full_key}=...")
    except (ValueError, KeyError, OSError) as error:  # refused handshakes are OSErrors
        sys.exit(f"forcing-run: {error}")


if __name__ == "__main__":
    main()
