"""What a driver tells about an episode: a record per control step, a result at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from deploy.control_statistics import ControlStatistics
from deploy.controller import Decision
from deploy.motion import Motion
from policy.interface import Plan
from teleop_data.environment import Observation, StepResult

Ending = Literal["success", "terminated", "max_steps", "no_plan", "held_too_long"]


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One control step, for recorders and videos.

    Attributes:
        step: control step.
        observation: what was seen before the action.
        plan: the newest plan that arrived for this step, None if none did.
        source_levels: noise level by source, as that plan's maker used them.
        decision: what was commanded, and why.
        result: what the environment gave.
    """

    step: int
    observation: Observation
    plan: Plan | None
    source_levels: dict[str, float]
    decision: Decision
    result: StepResult


OnStep = Callable[[StepRecord], None]


@dataclass(kw_only=True)
class EpisodeResult:
    """One episode in numbers; `add` takes in its steps one by one.

    Attributes:
        seed: of the environment's reset and of the policy's session.
        ending: why it ended; no_plan = it never began, held_too_long = the plans ceased.
        num_steps: control steps.
        max_reward: greatest reward of any step.
        final_reward: reward of the last step.
        success_step: control step whose action reached the goal, None if none did.
        perturbations: what went wrong and when, see `PerturbedEnvironment.facts`.
        facts: what else the environment tells about the episode, see `Labelled.facts`.
        statistics: of the controller.
        motion: of the hand; None where the environment has no state to judge it by.
    """

    seed: int
    ending: Ending = "max_steps"
    num_steps: int = 0
    max_reward: float = 0.0
    final_reward: float = 0.0
    success_step: int | None = None
    perturbations: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    statistics: ControlStatistics = field(default_factory=ControlStatistics)
    motion: Motion | None = None

    @property
    def is_success(self) -> bool:
        """Whether the goal was reached at any step."""
        return self.success_step is not None

    @property
    def done_step(self) -> int | None:
        """Control step that finished the task, None if none did.

        Earlier than `success_step` where success is judged at the end only and the environment
        tells the fact `done_step`.
        """
        return self.facts.get("done_step", self.success_step)

    @property
    def is_perturbed(self) -> bool:
        """Whether the window of any perturbation had begun before the episode ended."""
        begins = [row["window"][0] for row in self.perturbations if row["window"] is not None]
        return any(begin < self.num_steps for begin in begins)

    def add(self, result: StepResult) -> bool:
        """Take in one step; whether the episode is over with it."""
        self.final_reward = result.reward
        self.max_reward = max(self.max_reward, result.reward)
        if result.success and self.success_step is None:
            self.success_step = self.num_steps
        self.num_steps += 1
        if result.terminated:
            self.ending = "success" if result.success else "terminated"
        return result.terminated

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready row."""
        return {
            "seed": self.seed,
            "ending": self.ending,
            "num_steps": self.num_steps,
            "max_reward": self.max_reward,
            "final_reward": self.final_reward,
            "success": self.is_success,
            "success_step": self.success_step,
            "perturbations": self.perturbations,
            "facts": self.facts,
            "motion": None if self.motion is None else self.motion.to_json(),
            "statistics": self.statistics.to_json(),
        }
