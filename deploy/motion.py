"""Motion: how well the hand moved in one episode, judged by what it really did.

From the states of an arm as `sim.arm.actions` lays them out, (T + 1, 10): position (3,) m, rotation
6-D, opening of the gripper m; the first is from before the first control step.

    state         s0    s1    s2    s3 ...          a step is stalled if neither the hand nor the
    control step     0     1     2    ...           gripper moved by more than a millimetre in it
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from teleop_data.schema import Schema

STATE, STATE_SHAPE = "state", (10,)
POSITION, OPENING = slice(0, 3), 9
STILL_M = 1e-3  # a control step that moves less is stalled


@dataclass(frozen=True, kw_only=True)
class Motion:
    """One episode's motion.

    Attributes:
        stall_steps: control steps that were stalled, up to the one that finished the task.
        longest_stall_steps: most of them in a row.
        peak_jerk: greatest jerk of the hand, m/s^3; None for an episode of less than three steps.
    """

    stall_steps: int
    longest_stall_steps: int
    peak_jerk: float | None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready row."""
        return asdict(self)


def has_hand(schema: Schema) -> bool:
    """Whether observations of `schema` hold the state that motion is judged by."""
    return STATE in schema.names and schema[STATE].shape == STATE_SHAPE


def motion_of(states: np.ndarray, *, rate_hz: float, done_step: int | None) -> Motion:
    """Motion of the hand.

    Args:
        states: (T + 1, 10), see the top of this file.
        rate_hz: control steps a second.
        done_step: control step that finished the task, None if none did: rest after it is no stall.
    """
    if states.ndim != 2 or states.shape[1:] != STATE_SHAPE or len(states) < 2:
        raise ValueError(f"states have shape {states.shape}, expected (T + 1, 10) with T > 0")
    still = stalled_steps(states)[: None if done_step is None else done_step + 1]
    return Motion(
        stall_steps=int(still.sum()),
        longest_stall_steps=longest_run(still),
        peak_jerk=peak_jerk(states[:, POSITION], rate_hz=rate_hz),
    )


def stalled_steps(states: np.ndarray) -> np.ndarray:
    """(T,) bool: control steps in which neither hand nor gripper moved by more than 1 mm."""
    changes = np.diff(np.asarray(states, np.float64), axis=0)  # (T, 10)
    moved_m = np.linalg.norm(changes[:, POSITION], axis=1)
    return (moved_m <= STILL_M) & (np.abs(changes[:, OPENING]) <= STILL_M)


def longest_run(marks: np.ndarray) -> int:
    """Most true values in a row of `marks` (T,)."""
    longest = present = 0
    for mark in marks:
        present = present + 1 if mark else 0
        longest = max(longest, present)
    return longest


def peak_jerk(positions: np.ndarray, *, rate_hz: float) -> float | None:
    """Greatest norm of the third difference of `positions` (T + 1, 3) m, in m/s^3."""
    if len(positions) < 4:
        return None
    thirds = np.diff(np.asarray(positions, np.float64), n=3, axis=0)
    return float(np.linalg.norm(thirds, axis=1).max() * rate_hz**3)
