"""forcing-view: watch a task in the browser, live, at the speed of the real arm.

    forcing-view                                    # the scripted expert swaps two fruits
    forcing-view checkpoint=<folder> perturbation=black_2s perturbation.length="4 s"

The page has the arm, the cameras' pictures and the plan as way-points, blue where it is decided,
orange where it is noise still. It has buttons to pause and to go to the next episode. Only this
machine can reach it. Ctrl-C ends it. A policy that needs more than a control step to answer is seen
slower than it would be; it is asked in virtual time.
"""

from __future__ import annotations

import logging
import sys
import threading
import webbrowser
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from enum import Enum
from itertools import count, islice
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from deploy.control_loop import Ticker
from deploy.episode import EpisodeResult, StepRecord
from deploy.live_view import LiveView
from deploy.rehearsed_expert import RehearsedExpert
from deploy.stop_signal import stop_on_signal
from deploy.view_panel import Buttons
from deploy.virtual_time import Sensing, run_episode
from policy.interface import Policy
from sim.arm.environment import ArmEnvironment
from sim.perturbations.conditions import PerturbationConfig, perturbations_of
from sim.perturbations.environment import PerturbedEnvironment
from teleop_data.clock import MonotonicClock
from teleop_data.environment import Environment, Observation

logger = logging.getLogger(__name__)

PAUSE_POLL_S = 0.05
REST_S = 1.5  # the end of an episode stays to be seen for as long


class Surfaces(Enum):
    """How the arm is drawn on the page."""

    fine = "fine"
    fast = "fast"


class Flagging(Enum):
    """Who tells the policy that a source is bad."""

    none = "none"
    oracle = "oracle"
    auto = "auto"


@dataclass
class ViewConfig:
    """What `forcing-view` is told.

    Attributes:
        task: a node of sim/configs/task.
        checkpoint: folder that forcing-train wrote; null = the task's scripted expert drives.
        inference: planning mode of the checkpoint, rolling or chunk.
        planning: arguments of that mode, instead of the checkpoint's own.
        flag: none believes a bad source, oracle knows, auto finds out as the policy server does.
        perturbation: a condition of sim/configs/perturbation.
        num_episodes: how many; null = until Ctrl-C.
        first_seed: seed of the first episode; they count up.
        port: of the page on this machine; 0 takes any that is free.
        open: show the page in this machine's browser.
        surfaces: of the arm; fast for a browser without a GPU.
    """

    task: dict[str, Any] = MISSING
    checkpoint: str | None = None
    inference: str = "rolling"
    planning: dict[str, Any] = field(default_factory=dict)
    flag: Flagging = Flagging.auto
    perturbation: PerturbationConfig = field(default_factory=PerturbationConfig)
    num_episodes: int | None = None
    first_seed: int = 100_000
    port: int = 8080
    open: bool = False
    surfaces: Surfaces = Surfaces.fine


class Senses:
    """What arrives of a perturbed environment's observations, and when it was captured."""

    def __init__(self, environment: PerturbedEnvironment) -> None:
        self._environment, self._step = environment, 0

    def perceive(
        self, step: int, _observation: Observation
    ) -> tuple[Observation, Mapping[str, float]]:
        """What arrived at control step `step`, and the true noise level by source."""
        self._step = step
        sight = self._environment.sight
        return sight.arrived, sight.truth

    def captured_s(self) -> dict[str, float]:
        """Capture time by source, s since the episode began; late pictures carry theirs."""
        sight, rate_hz = self._environment.sight, self._environment.schema.rate_hz
        return {name: (self._step - sight.ages.get(name, 0)) / rate_hz for name in sight.arrived}

    @property
    def trouble(self) -> str:
        """What is perturbed just now, in words; "" if nothing is."""
        sight = self._environment.sight
        perturbed = [name for name, level in sight.truth.items() if level > 0]
        if sight.is_world_perturbed:
            perturbed.append("world or action")
        return f"perturbed: {', '.join(perturbed)}" if perturbed else ""


class _Skipped(Exception):
    """The next episode was asked for."""


class _Stopped(Exception):
    """A signal came."""


class LiveEpisode:
    """What happens after every control step of an episode: show it, wait for the clock, obey."""

    def __init__(
        self,
        view: LiveView,
        *,
        driver: Policy,
        senses: Senses,
        buttons: Buttons,
        stopped: threading.Event,
    ) -> None:
        self._view, self._driver, self._senses = view, driver, senses
        self._buttons, self._stopped = buttons, stopped

    def start(self, seed: int, *, rate_hz: float) -> None:
        """The episode of `seed` begins."""
        self._buttons.next_asked.clear()
        self._view.start_episode(seed)
        self._ticker = Ticker(MonotonicClock(), period_s=1 / rate_hz)
        self._ticker.wait()

    def on_step(self, record: StepRecord) -> None:
        """Show `record` and return when the next step is due."""
        driver = self._driver
        subgoal = driver.subgoal(record.step) if isinstance(driver, RehearsedExpert) else ""
        self._view.show(record, subgoal=subgoal, trouble=self._senses.trouble)
        buttons = self._buttons
        while buttons.is_paused.is_set() and not buttons.next_asked.is_set():
            if self._stopped.wait(PAUSE_POLL_S):
                break
        self._ticker.wait()
        if self._stopped.is_set():
            raise _Stopped
        if buttons.next_asked.is_set():
            raise _Skipped


def run(config: ViewConfig, *, stopped: threading.Event) -> None:
    """Show episodes until there are no more or `stopped`. Errors say what was misused."""
    if config.num_episodes is not None and config.num_episodes < 1:
        raise ValueError(f"num_episodes is {config.num_episodes}, expected at least 1, or null")
    with ExitStack() as stack:
        inner, environment = _world(config)
        stack.enter_context(closing(environment))
        driver, name = _driver(config, environment, stack=stack)
        buttons = Buttons()
        condition = "" if config.perturbation.kind == "none" else f", {config.perturbation.label}"
        view = LiveView(
            environment,
            title=f"{config.task['name']}, {name}{condition}",
            port=config.port,
            arm=inner if isinstance(inner, ArmEnvironment) else None,
            visuals=config.surfaces.value,
            buttons=buttons,
        )
        stack.enter_context(closing(view))
        print(f"view at {view.url}, Ctrl-C ends it", flush=True)
        if config.open:
            webbrowser.open(view.url)
        senses = Senses(environment)
        episode = LiveEpisode(view, driver=driver, senses=senses, buttons=buttons, stopped=stopped)
        sensing = Sensing(
            flag=config.flag.value, perceive=senses.perceive, captured_s=senses.captured_s
        )
        seeds = count(config.first_seed)
        for seed in islice(seeds, config.num_episodes):
            episode.start(seed, rate_hz=environment.schema.rate_hz)
            try:
                result = run_episode(
                    environment, driver, seed=seed, sensing=sensing, on_step=episode.on_step
                )
            except _Skipped:
                print(f"episode {seed}: left", flush=True)
                continue
            except _Stopped:
                return
            print(episode_line(result), flush=True)
            if stopped.wait(REST_S):
                return


def episode_line(result: EpisodeResult) -> str:
    """What is printed of an episode that came to its end."""
    return (
        f"episode {result.seed}: {result.ending}, {result.num_steps} steps, "
        f"reward {result.max_reward:.2f}"
    )


def _world(config: ViewConfig) -> tuple[Environment, PerturbedEnvironment]:
    """The task's environment, and the same as the condition perturbs it."""
    inner: Environment = instantiate(config.task["environment"])
    perturbations = perturbations_of(config.perturbation, schema=inner.schema)
    return inner, PerturbedEnvironment(inner, perturbations)


def _driver(
    config: ViewConfig, environment: Environment, *, stack: ExitStack
) -> tuple[Policy, str]:
    """Who drives, and a name for it."""
    if config.checkpoint is not None:
        # torch takes seconds to import, which an expert need not wait for
        from policy.checkpoint import check_schema, load_policy

        policy = load_policy(config.checkpoint, inference=config.inference, **config.planning)
        check_schema(policy.schema, offered=environment.schema)
        return policy, config.inference
    if config.task.get("expert") is None:
        raise ValueError(
            f"task {config.task['name']!r} has no scripted expert; give checkpoint=<folder>"
        )
    inner, rehearsal = _world(config)
    stack.enter_context(closing(rehearsal))
    return RehearsedExpert(rehearsal, instantiate(config.task["expert"], inner)), "scripted expert"


def main() -> None:
    """Console entry point: reads the command line, exits with a message on misuse."""
    ConfigStore.instance().store(name="view_schema", node=ViewConfig)
    hydra.main(version_base="1.3", config_path="configs", config_name="view")(_main)()


def _main(config: Any) -> None:
    try:
        run(OmegaConf.to_object(config), stopped=stop_on_signal())  # pyright: ignore[reportArgumentType]
    except MissingMandatoryValue as error:
        sys.exit(f"forcing-view: {error.full_key} is not given; say {error.full_key}=...")
    except (ValueError, KeyError, OSError) as error:
        sys.exit(f"forcing-view: {error}")


if __name__ == "__main__":
    main()
