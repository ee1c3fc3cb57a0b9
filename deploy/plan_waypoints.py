"""A plan as way-points in space: where each slot brings the hand, and its noise level's colour.

hand o---o---o---o---o      blue: decided ... orange: pure noise, the best guess so far
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deploy.film_frame import CLEAN, NOISE
from sim.arm.actions import ActionMode


def plan_positions(
    actions: np.ndarray,
    *,
    mode: ActionMode,
    hand: np.ndarray,
    tcp_of: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """(N, 3) m in the arm's base frame, where each of `actions` (N, A) brings the hand.

    Args:
        actions: slots of a plan, the first being the next one to be executed.
        mode: what they mean, see `sim.arm.actions`. Relative ones add up, as if each were reached.
        hand: (3,) m, where the hand is now.
        tcp_of: position (3,) of the hand for joints (7,), for joint actions.
    """
    if mode == "absolute":
        return actions[:, :3].astype(np.float64)
    if mode == "relative":
        return hand + np.cumsum(actions[:, :3], axis=0, dtype=np.float64)
    return np.array([tcp_of(joints) for joints in actions[:, :7]]).reshape(-1, 3)


def level_colors(levels: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 red, green, blue of noise levels (N,), as in the films: blue to orange."""
    clean, noise = np.array(CLEAN, np.float64), np.array(NOISE, np.float64)
    return np.round(clean + np.asarray(levels)[:, None] * (noise - clean)).astype(np.uint8)
