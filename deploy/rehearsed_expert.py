"""A scripted expert as a Policy: its plan is what it will do.

It plays the episode some steps ahead, in a world of its own that is the real one to the bit: same
seed, same actions. So everything in its plan is decided, and every noise level is 0.

    rehearsal   a a a a a|a a a a|a      played so far
    real world  a a a a a|               the plan at this step: the next ones
"""

from __future__ import annotations

import numpy as np

from policy.interface import Plan, Request
from teleop_data.environment import Environment, Labelled
from teleop_data.schema import Schema
from teleop_data.teleoperator import Teleoperator

HORIZON = 16


class RehearsedExpert:
    """One episode at a time: a new session ends the one before."""

    def __init__(
        self, environment: Environment, expert: Teleoperator, *, horizon: int = HORIZON
    ) -> None:
        """`expert` drives `environment`, which nobody else may touch; plans of `horizon` slots."""
        self._environment, self._expert, self._horizon = environment, expert, horizon
        self._actions: list[np.ndarray] = []
        self._subgoals: list[str] = []

    @property
    def schema(self) -> Schema:
        """The environment's."""
        return self._environment.schema

    def start_session(self, seed: int) -> RehearsedExpert:
        """Begin to rehearse the episode of `seed`."""
        self._observation = self._environment.reset(seed)
        self._expert.reset(seed)
        self._actions, self._subgoals, self._is_over = [], [], False
        return self

    def step(self, request: Request) -> Plan:
        """The next actions; fewer near the end. Beyond it, the last one again."""
        while len(self._actions) < request.step + self._horizon and not self._is_over:
            self._rehearse()
        first = min(request.step, len(self._actions) - 1)
        actions = np.stack(self._actions[first : request.step + self._horizon])
        return Plan(
            start_step=request.step,
            actions=actions.astype(np.float32),
            levels=np.zeros(len(actions), np.float32),
            network_calls=0,
        )

    def subgoal(self, step: int) -> str:
        """What the action of control step `step` pursues; "" if the expert does not say."""
        return self._subgoals[step] if step < len(self._subgoals) else ""

    def _rehearse(self) -> None:
        """One control step further."""
        action = self._expert.act(self._observation)
        self._actions.append(action)
        self._subgoals.append(self._told_subgoal())
        result = self._environment.step(action)
        self._observation = result.observation
        is_long = len(self._actions) >= self._environment.max_steps
        self._is_over = result.terminated or is_long

    def _told_subgoal(self) -> str:
        if not isinstance(self._expert, Labelled):
            return ""
        index = self._expert.labels().get("subgoal")
        return "" if index is None else str(self._expert.facts()["subgoals"][int(index[0])])
