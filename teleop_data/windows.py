"""Windows: fixed-length slices of one episode, as pure index arithmetic.

Around step t, W control steps of context and a horizon of H:

    steps          t-W   t-W+1 ... t     t+1 ... t+H-1
    observations         |o    ... o|                    W
    actions        |a     a    ... a     a   ... a   |   W + H, one step before the context onwards

`actions[j]` was executed just before context tick j; the plan made at tick j is
`actions[j+1 : j+1+H]`. Steps outside the episode repeat its first or last step and are padded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class WindowIndices:
    """Rows of the replay buffer for B windows.

    Attributes:
        observation: (B, W) row of each context tick.
        action: (B, W + H) row of each action.
        observation_is_padded: (B, W) whether the tick lies outside the episode.
        action_is_padded: (B, W + H) the same for actions.
    """

    observation: np.ndarray
    action: np.ndarray
    observation_is_padded: np.ndarray
    action_is_padded: np.ndarray


def window_indices(
    rows: np.ndarray, *, starts: np.ndarray, ends: np.ndarray, context: int, horizon: int
) -> WindowIndices:
    """Rows of the windows whose newest observation is at `rows`.

    Args:
        rows: (B,) row of step t in the buffer.
        starts: (B,) first row of the episode each lies in.
        ends: (B,) one past its last row.
        context: W >= 1.
        horizon: H >= 1.

    Raises:
        ValueError: context or horizon is below 1, or a row lies outside its episode.
    """
    if context < 1 or horizon < 1:
        raise ValueError(f"context and horizon must be at least 1, got {context} and {horizon}")
    if np.any(rows < starts) or np.any(rows >= ends):
        raise ValueError("every row must lie in its episode: starts <= rows < ends")
    starts, ends = starts[:, None], ends[:, None]
    observation = rows[:, None] + np.arange(1 - context, 1)
    action = rows[:, None] + np.arange(-context, horizon)
    return WindowIndices(
        observation=np.clip(observation, starts, ends - 1),
        action=np.clip(action, starts, ends - 1),
        observation_is_padded=(observation < starts) | (observation >= ends),
        action_is_padded=(action < starts) | (action >= ends),
    )


def rows_of_episodes(
    episodes: np.ndarray, *, episode_ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Every row of the given episodes and the episode each belongs to, both (N,).

    ValueError if an episode does not exist.
    """
    episodes = np.asarray(episodes, np.int64)
    outside = episodes[(episodes < 0) | (episodes >= len(episode_ends))]
    if len(outside):
        raise ValueError(f"no episodes {outside}; have 0..{len(episode_ends) - 1}")
    starts = np.concatenate([[0], episode_ends[:-1]])
    rows = [np.arange(starts[e], episode_ends[e]) for e in episodes]
    owners = [np.full(len(r), e) for r, e in zip(rows, episodes, strict=True)]
    if not rows:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate(rows).astype(np.int64), np.concatenate(owners).astype(np.int64)


def split_episodes(
    num_episodes: int, *, validation_share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation episodes, both sorted, a function of the arguments alone.

    The validation set has round(num_episodes * share) episodes, but at least one episode is left
    to train on.

    Raises:
        ValueError: the share lies outside [0, 1), or there is no episode.
    """
    if not 0 <= validation_share < 1:
        raise ValueError(f"validation_share must lie in [0, 1), got {validation_share}")
    if num_episodes < 1:
        raise ValueError("a split needs at least one episode")
    num_validation = min(round(num_episodes * validation_share), num_episodes - 1)
    order = np.random.default_rng(seed).permutation(num_episodes)
    return np.sort(order[num_validation:]), np.sort(order[:num_validation])
