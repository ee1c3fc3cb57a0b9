"""Trouble with whole episodes: idle stretches, early ends, copies.

step   0 . . . . . . . . . . . . . . . . . . . . . . T-1
       |idle_start|   moves   |idle_stretch|  moves  |ends_in_motion
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.trouble import MAX_PLACES, Trouble, is_still, places, signed_changes

IDLE_SHARE = 1e-3  # of an entry's range, a step: a person's hand and a sensor are never quite still
IDLE_EDGE_S, IDLE_STRETCH_S = 1.0, 2.0  # at the start or end of an episode, and in between
END_S = 0.3  # the part of an episode that tells how it ends
STILL_END, MOVING_END = 0.25, 1.5  # of the typical speed: how most end, and what is then suspect


def is_idle(buffer: ReplayBuffer) -> np.ndarray:
    """(N,) whether neither an action nor a state changed since the step before.

    False everywhere where the store has no action; False at an episode's first step.
    """
    features = buffer.schema.with_role("state", "action")
    idle = np.full(buffer.num_steps, bool(buffer.schema.with_role("action")))
    for feature in features:
        idle &= is_still(
            buffer[feature.name][:],
            feature=feature,
            episode_ends=buffer.episode_ends,
            share=IDLE_SHARE,
        )
    return idle


def idle_edges(idle: np.ndarray) -> tuple[int, int]:
    """Idle steps at the start and at the end of one episode; idle (T,), all of them if all are.

    The first step counts as idle if the second is.
    """
    if len(idle) < 2:
        return 0, 0
    idle = idle.copy()
    idle[0] = idle[1]
    moving = np.flatnonzero(~idle)
    if not len(moving):
        return len(idle), 0
    return int(moving[0]), int(len(idle) - 1 - moving[-1])


def idle_trouble(
    idle: np.ndarray, *, rate_hz: float, episode_ends: np.ndarray
) -> Iterator[Trouble]:
    """Idle stretches of `idle` (N,). Kinds: idle_start, idle_end, idle_stretch."""
    edge, between = math.ceil(IDLE_EDGE_S * rate_hz), math.ceil(IDLE_STRETCH_S * rate_hz)
    found: dict[str, list[tuple[int, int]]] = {}  # first row and length
    starts = np.concatenate([[0], episode_ends[:-1]])
    for start, end in zip(starts.tolist(), episode_ends.tolist(), strict=True):
        head, tail = idle_edges(idle[start:end])
        if head >= edge:
            found.setdefault("idle_start", []).append((start, head))
        if tail >= edge:
            found.setdefault("idle_end", []).append((end - tail, tail))
        middle = idle[start + head : end - tail]
        edges = np.flatnonzero(np.diff(middle.astype(np.int8), prepend=0, append=0))
        for first, last in edges.reshape(-1, 2).tolist():
            if last - first >= between:
                found.setdefault("idle_stretch", []).append((start + head + first, last - first))
    where = {"idle_start": "at the start", "idle_end": "at the end", "idle_stretch": "in between"}
    for kind, stretches in found.items():
        rows, lengths = np.array(stretches).T
        at = places(rows, episode_ends=episode_ends)
        text = (
            f"nothing moves {where[kind]}: {len(rows)} stretches, the longest "
            f"{lengths.max() / rate_hz:.1f} s, first in episode {at[0][0]}, step {at[0][1]}"
        )
        yield Trouble(kind=kind, text=text, feature=None, count=len(rows), places=at)


def early_ends(buffer: ReplayBuffer) -> Iterator[Trouble]:
    """Episodes that stop while the arm moves fast, in a store where most come to rest first.

    Speed is the mean change of the state's entries in their ranges; where the episodes do not come
    to rest, nothing can be told.
    """
    states = buffer.schema.with_role("state")
    ends, num_last = buffer.episode_ends, max(2, math.ceil(END_S * buffer.schema.rate_hz))
    if not states or len(ends) < 4:
        return
    speed = np.zeros(buffer.num_steps)
    for feature in states:
        values = buffer[feature.name][:]
        change = np.abs(signed_changes(values, feature=feature, episode_ends=ends))
        typical = np.nanmean(np.where(np.isfinite(change), change, np.nan), axis=0)
        speed += (np.nan_to_num(change) / np.where(typical > 0, typical, np.inf)).mean(axis=1)
    last = np.array([speed[max(0, end - num_last) : end].mean() for end in ends]) / speed.mean()
    moving = np.flatnonzero(last > MOVING_END)
    if np.median(last) < STILL_END and len(moving):
        listed = ", ".join(f"episode {e} at {last[e]:.1f} times" for e in moving[:8])
        text = (
            f"{len(moving)} episodes stop while the state moves faster than usual, most come to "
            f"rest first: {listed} the mean speed"
        )
        at = tuple((int(e), int(ends[e] - buffer.episode_starts[e] - 1)) for e in moving)
        yield Trouble(
            kind="ends_in_motion", text=text, feature=None, count=len(at), places=at[:MAX_PLACES]
        )


def copies(buffer: ReplayBuffer) -> Iterator[Trouble]:
    """Episodes whose states and actions are bit for bit those of an earlier one."""
    names = [feature.name for feature in buffer.schema.with_role("state", "action")]
    first: dict[bytes, int] = {}
    copied: list[tuple[int, int]] = []
    for episode, (start, end) in enumerate(
        zip(buffer.episode_starts.tolist(), buffer.episode_ends.tolist(), strict=True)
    ):
        digest = hashlib.blake2b(digest_size=16)
        for name in names:
            digest.update(np.ascontiguousarray(buffer[name][start:end]).tobytes())
        original = first.setdefault(digest.digest() + (end - start).to_bytes(8), episode)
        if original != episode and names:
            copied.append((episode, original))
    if copied:
        listed = ", ".join(f"episode {copy} is episode {original}" for copy, original in copied[:8])
        text = f"{len(copied)} episodes are copies: {listed}"
        at = tuple((episode, 0) for episode, _ in copied[:MAX_PLACES])
        yield Trouble(kind="copied_episode", text=text, feature=None, count=len(copied), places=at)


def failures(attributes: Sequence[dict[str, Any]]) -> Iterator[Trouble]:
    """Episodes whose own record says that they did not succeed."""
    failed = [e for e, told in enumerate(attributes) if told.get("success") is False]
    if failed:
        text = f"{len(failed)} episodes did not succeed: {', '.join(map(str, failed[:8]))}"
        text += " ..." if len(failed) > 8 else ""
        at = tuple((episode, 0) for episode in failed[:MAX_PLACES])
        yield Trouble(kind="not_successful", text=text, feature=None, count=len(failed), places=at)
