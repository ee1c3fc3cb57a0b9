"""What deployment knows of a policy. Imports numpy only: the robot's side uses it too.

Time is counted in control steps from the start of the episode. A request at step t says what was
observed at t and what was executed before it; the plan that answers it covers steps t, t+1, ...

    executed ... a a a | plan  a_t  a_t+1 ... a_t+H-1
    levels       0 0 0 |       0    .1        1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from teleop_data.schema import Schema


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a policy is told at one control step.

    Attributes:
        step: control step t of this observation, 0 at reset; rises from request to request.
        observation: observed features at t; a missing source may be absent.
        levels: noise level in [0, 1] by source; absent means 0 (healthy), and 1 where the source
            itself is absent from `observation`.
        executed: (n, A) actions really executed at steps t-n .. t-1, after the safety filter;
            n is normally 1, 0 at the first request, more after a gap.
        delay: control steps that will pass before the answer is usable. The plan's first `delay`
            slots are already committed and stay as they were.
    """

    step: int
    observation: Mapping[str, np.ndarray]
    levels: Mapping[str, float] = field(default_factory=dict)
    executed: np.ndarray | None = None
    delay: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Future actions with their noise levels.

    Attributes:
        start_step: control step of the first slot (the request's step).
        actions: (H, A) float32 in the schema's units: the clean value where the level is 0, else
            the current best estimate.
        levels: (H,) float32, never falling along time; 0 is decided, 1 is pure noise.
        network_calls: denoiser calls this answer took; 0 if the old plan still holds.
    """

    start_step: int
    actions: np.ndarray
    levels: np.ndarray
    network_calls: int


class Session(Protocol):
    """One episode of one policy. Not thread-safe."""

    def step(self, request: Request) -> Plan:
        """Take in what happened, return the plan. ValueError/KeyError for a request off schema."""
        ...


class Policy(Protocol):
    """A loaded policy; holds no episode state, so one policy serves many sessions."""

    @property
    def schema(self) -> Schema:
        """Features it was trained on: its observations and its action."""
        ...

    def start_session(self, seed: int) -> Session:
        """A fresh session; `seed` fixes every random draw in it."""
        ...
