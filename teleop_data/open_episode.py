"""The episode in progress: what is known of it before it is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from teleop_data.environment import StepResult
from teleop_data.recorder import EpisodeSummary

Verdict = Literal["keep", "drop", "interrupted"]


@dataclass(kw_only=True)
class OpenEpisode:
    """The episode in progress.

    Attributes:
        seed: of its start.
        num_steps: control steps handed over to the writer.
        num_lost: control steps for which the writer had no room.
        num_late: control steps that began late, or after a deadline was let go.
        success: whether the goal was reached at any step.
        max_reward: the greatest of a step.
        trouble: what went wrong, each kind of trouble once.
    """

    seed: int
    num_steps: int = 0
    num_lost: int = 0
    num_late: int = 0
    success: bool = False
    max_reward: float = 0.0
    trouble: list[str] = field(default_factory=list)

    def add(self, result: StepResult) -> None:
        """Take in what a control step gave."""
        self.success = self.success or bool(result.success)
        self.max_reward = max(self.max_reward, float(result.reward))

    @property
    def summary(self) -> EpisodeSummary:
        """How it went."""
        return EpisodeSummary(
            seed=self.seed,
            num_steps=self.num_steps,
            success=self.success,
            max_reward=self.max_reward,
        )

    @property
    def text(self) -> str:
        """For people: seed, length, success."""
        goal = "goal reached" if self.success else "goal not reached"
        return f"the episode of seed {self.seed}: {self.num_steps} steps, {goal}"
