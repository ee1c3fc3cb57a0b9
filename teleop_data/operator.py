"""Operator: who says when an episode starts, whether it is kept, and what it is to be called.

    waiting --start--> recording --the episode ends, or keep--> deciding --keep--> kept
                           |                                       |
                           +------------- drop --------------------+----drop--> gone

"keep" while recording ends the episode and keeps it; "stop" ends the session, and an episode that
it cuts off is kept, marked as interrupted. A keyboard, a page and a script are operators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from teleop_data.environment import Observation

CommandKind = Literal["start", "keep", "drop", "label", "stop"]
Phase = Literal["waiting", "recording", "deciding"]


@dataclass(frozen=True, kw_only=True)
class Command:
    """What an operator wants.

    Attributes:
        kind: of the command.
        text: of a label, which is stored with the episode and the step it was given at.
    """

    kind: CommandKind
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Status:
    """What an operator is told.

    Attributes:
        phase: waiting for start, recording, or deciding (the episode is over, not yet kept).
        seed: of the episode.
        num_kept: episodes in the store, with those of earlier sessions.
        num_steps: of the episode so far.
        success: whether its goal was reached at any step.
        observation: the newest; while waiting, of how the episode will start.
        trouble: what went wrong last in the episode, "" if nothing did.
    """

    phase: Phase
    seed: int
    num_kept: int
    num_steps: int = 0
    success: bool = False
    observation: Observation | None = None
    trouble: str = ""


class Operator(Protocol):
    """Asked and told once per control step, from the recording loop's thread; neither may wait."""

    def poll(self) -> Command | None:
        """The oldest command that was not given out yet; None if there is none."""
        ...

    def tell(self, status: Status) -> None:
        """How things stand; called before every `poll`."""
        ...


class Automatic:
    """The operator of a scripted expert: starts at once and keeps what succeeded."""

    def __init__(self, *, keep_failures: bool = False) -> None:
        """Keep successful episodes; with `keep_failures` all of them."""
        self._keep_failures = keep_failures
        self._status: Status | None = None

    def poll(self) -> Command | None:
        """Start while waiting, keep or drop while deciding, nothing while recording."""
        status = self._status
        if status is None or status.phase == "recording":
            return None
        if status.phase == "waiting":
            return Command(kind="start")
        return Command(kind="keep" if status.success or self._keep_failures else "drop")

    def tell(self, status: Status) -> None:
        """Remember how things stand."""
        self._status = status
