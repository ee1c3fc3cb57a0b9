"""Plan source: what a control loop needs to know of where its plans come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from deploy.wire import Flag, Timing
from policy.interface import Plan, Request


@dataclass(frozen=True, kw_only=True)
class PlanAnswer:
    """A plan as it came from the server.

    Attributes:
        plan: to be given to the controller.
        valid_until: first control step at which it may not be executed any more.
        round_trip_s: from sending the request to reading the answer. A loop reads once per control
            step, so this is the time to the next tick, not the network's and the policy's alone.
        source_levels: noise level that each source was given.
        reasons: why, for the sources above 0.
        timing: where the server's time went.
    """

    plan: Plan
    valid_until: int
    round_trip_s: float
    source_levels: dict[str, float]
    reasons: dict[str, str]
    timing: Timing


class PlanSource(Protocol):
    """Where plans come from; `PolicyClient` is one. No method blocks."""

    def reset(self, *, episode: int, seed: int, flag: Flag = "auto") -> None:
        """Begin an episode."""
        ...

    def send_request(
        self, request: Request, *, captured_s: Mapping[str, float] | None = None
    ) -> bool:
        """Ask for a plan; whether that was possible."""
        ...

    def poll_reply(self) -> PlanAnswer | None:
        """The newest plan that arrived since last time."""
        ...
