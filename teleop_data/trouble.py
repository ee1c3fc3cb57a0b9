"""Trouble in demonstrations: what a look at the numbers finds before a training run does.

Pure functions over arrays and episode ends; `find_trouble` gathers them over a replay buffer with
one camera episode in memory at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Feature

SHORT_SHARE = 0.25  # of the median length: shorter episodes are probably false starts
STILL_SHARE = 1e-4  # of an entry's range: smaller changes count as none
JUMP_FACTOR = 5.0  # times the 90th percentile of the changes that are not zero
MAX_PLACES = 20
FROZEN_RUN_S = 0.3  # a camera that repeats one frame this long while the state moves
REPEATED_SHARE = 0.1  # of the frames taken while the state moves, outside frozen stretches
OUTLIER_FACTOR = 3.0  # times the range from the 1st to the 99th percentile, beyond either


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """One kind of trouble in one feature.

    Attributes:
        kind: what it is, one word; `validate.VERDICTS` lists all with what to do.
        text: a sentence for people, with the first place in it.
        feature: name of the feature; None if it concerns the whole episode.
        count: how many steps, entries, files or episodes are affected (for frozen_camera and
            short_episode: episodes).
        places: (episode, step in it) of the first `MAX_PLACES`; empty if it concerns all.
    """

    kind: str
    text: str
    feature: str | None
    count: int
    places: tuple[tuple[int, int], ...] = ()


def places(rows: np.ndarray, *, episode_ends: np.ndarray) -> tuple[tuple[int, int], ...]:
    """(episode, step) of the first `MAX_PLACES` of the buffer's `rows`."""
    rows = np.asarray(rows[:MAX_PLACES])
    episodes = np.searchsorted(episode_ends, rows, side="right")
    starts = np.concatenate([[0], episode_ends[:-1]])[episodes]
    return tuple((int(e), int(t)) for e, t in zip(episodes, rows - starts, strict=True))


def signed_changes(values: np.ndarray, *, feature: Feature, episode_ends: np.ndarray) -> np.ndarray:
    """(N, D) float64 each entry's change since the step before; 0 at an episode's first step.
    Angles change by the shorter way round."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf; whoever asks has been told of it
        difference = np.diff(flat, axis=0, prepend=flat[:1])
        for entry in feature.angles:
            difference[:, entry] = (difference[:, entry] + math.pi) % (2 * math.pi) - math.pi
    difference[episode_ends[:-1]] = 0.0
    return difference


def is_still(
    values: np.ndarray, *, feature: Feature, episode_ends: np.ndarray, share: float = STILL_SHARE
) -> np.ndarray:
    """(N,) whether nothing changed since the step before by more than `share` of its range; False
    at an episode's first step."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    change = np.abs(signed_changes(values, feature=feature, episode_ends=episode_ends))
    finite = flat[np.isfinite(flat).all(axis=1)]
    span = np.ptp(finite, axis=0) if len(finite) else np.zeros(flat.shape[1])
    still = np.asarray(np.all(change <= share * span, axis=1))
    still[np.concatenate([[0], episode_ends[:-1]])] = False
    return still


def is_jump(values: np.ndarray, *, feature: Feature, episode_ends: np.ndarray) -> np.ndarray:
    """(N,) whether an entry changed far more than it usually does when it changes.

    An entry that only switches, as a gripper's does, never jumps.
    """
    jump = np.zeros(len(values), bool)
    difference = signed_changes(values, feature=feature, episode_ends=episode_ends)
    for change in np.abs(difference).T:
        moving = change[change > 0]
        if len(moving):
            jump |= change > JUMP_FACTOR * np.quantile(moving, 0.9)
    return jump


def longest_run(mask: np.ndarray) -> tuple[int, int]:
    """(start, length) of the longest stretch of True, (0, 0) if there is none."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    longest = int(np.argmax(ends - starts))
    return int(starts[longest]), int(ends[longest] - starts[longest])


def array_trouble(
    values: np.ndarray, *, feature: Feature, episode_ends: np.ndarray
) -> Iterator[Trouble]:
    """Values that are not finite, entries that never change, jumps of the action; values (N, ...).

    Where a value is not finite, nothing else is looked for.
    """
    flat = values.reshape(len(values), -1)
    bad = np.flatnonzero(~np.isfinite(flat).all(axis=1))
    if len(bad):
        text = f"{len(bad)} steps are not finite"
        yield at_rows("not_finite", bad, text, name=feature.name, episode_ends=episode_ends)
        return
    constant = np.flatnonzero(flat.min(axis=0) == flat.max(axis=0))
    if len(constant) and len(flat) > 1 and feature.role != "other":  # labels may well be constant
        listed = ", ".join(f"[{d}] = {flat[0, d]:.6g}" for d in constant[:8])
        text = f"{feature.name}: {len(constant)} of {flat.shape[1]} entries never change: {listed}"
        yield Trouble(kind="constant", text=text, feature=feature.name, count=len(constant))
    if feature.role == "action":
        jumps = np.flatnonzero(is_jump(values, feature=feature, episode_ends=episode_ends))
        if len(jumps):
            text = f"{len(jumps)} jumps, over {JUMP_FACTOR:g} times the 90th percentile of changes"
            yield at_rows("action_jump", jumps, text, name=feature.name, episode_ends=episode_ends)


def short_episodes(lengths: np.ndarray) -> Iterator[Trouble]:
    """Episodes shorter than `SHORT_SHARE` of the median length; lengths (E,)."""
    limit = SHORT_SHARE * float(np.median(lengths))
    short = np.flatnonzero(lengths < limit)
    if len(short):
        listed = ", ".join(f"episode {e} has {lengths[e]}" for e in short[:8])
        yield Trouble(
            kind="short_episode",
            text=f"{len(short)} episodes are shorter than {limit:g} steps, a quarter of the "
            f"median: {listed}",
            feature=None,
            count=len(short),
            places=tuple((int(e), 0) for e in short[:MAX_PLACES]),
        )


def camera_trouble(
    buffer: ReplayBuffer, name: str, *, state_is_still: np.ndarray
) -> Iterator[Trouble]:
    """Frozen and blank frames of one camera; `state_is_still` (N,) where no state changed.

    A frame that repeats while nothing moves is no trouble.
    """
    blank, repeated = np.zeros(buffer.num_steps, bool), np.zeros(buffer.num_steps, bool)
    frozen: list[tuple[int, int]] = []  # first row and length of each episode's longest run
    least = max(3, math.ceil(FROZEN_RUN_S * buffer.schema.rate_hz))
    for start, end in zip(buffer.episode_starts, buffer.episode_ends, strict=True):
        frames = buffer[name][int(start) : int(end)]
        flat = frames.reshape(len(frames), -1)
        blank[start:end] = flat.min(axis=1) == flat.max(axis=1)
        repeats = (flat[1:] == flat[:-1]).all(axis=1) & ~state_is_still[start + 1 : end]
        first, length = longest_run(repeats)
        repeated[start + 1 : end] = repeats
        if length >= least:
            frozen.append((int(start) + 1 + first, length))
            repeated[frozen[-1][0] : frozen[-1][0] + length] = False
    if frozen:
        rows, lengths = np.array(frozen).T
        text = f"frozen for up to {lengths.max()} steps while the state moves"
        yield at_rows("frozen_camera", rows, text, name=name, episode_ends=buffer.episode_ends)
    if repeated.sum() > REPEATED_SHARE * max(1, int((~state_is_still).sum())):
        rows = np.flatnonzero(repeated)
        text = f"{len(rows)} frames repeat the one before while the state moves"
        yield at_rows("repeated_frames", rows, text, name=name, episode_ends=buffer.episode_ends)
    if blank.any():
        rows = np.flatnonzero(blank)
        text = f"{len(rows)} frames have one value in every pixel"
        yield at_rows("blank_frame", rows, text, name=name, episode_ends=buffer.episode_ends)


def outliers(
    values: np.ndarray, *, feature: Feature, episode_ends: np.ndarray
) -> Iterator[Trouble]:
    """Finite values (N, ...) far outside the range that 98 % of them lie in.

    Angles have no outside, and an entry that is nearly always the same has no range.
    """
    flat = values.reshape(len(values), -1).astype(np.float64)
    low, high = np.quantile(flat, [0.01, 0.99], axis=0)
    reach = OUTLIER_FACTOR * (high - low)
    is_outside = ((flat < low - reach) | (flat > high + reach)) & (reach > 0)
    is_outside[:, list(feature.angles)] = False
    rows = np.flatnonzero(is_outside.any(axis=1))
    if len(rows):
        entry = int(np.argmax(is_outside[rows[0]]))
        text = (
            f"{len(rows)} steps lie over {OUTLIER_FACTOR:g} times the usual range away from it; "
            f"[{entry}] is {flat[rows[0], entry]:.6g}, usually {low[entry]:.6g} to "
            f"{high[entry]:.6g}"
        )
        yield at_rows("outlier", rows, text, name=feature.name, episode_ends=episode_ends)


def find_trouble(buffer: ReplayBuffer) -> list[Trouble]:
    """All trouble in a replay buffer that has at least one episode, whole episodes first."""
    found = list(short_episodes(buffer.episode_ends - buffer.episode_starts))
    still = np.full(buffer.num_steps, bool(buffer.schema.with_role("state")))
    for feature in buffer.schema.features:
        if missing := buffer.missing_files(feature.name):
            text = f"{feature.name}: {len(missing)} files are lost, or were left out because they "
            text += f"hold nothing but zeros: {', '.join(missing[:3])}"
            count = len(missing)
            found.append(Trouble(kind="missing_file", text=text, feature=feature.name, count=count))
        if feature.role != "camera":
            values = buffer[feature.name][:]
            found += array_trouble(values, feature=feature, episode_ends=buffer.episode_ends)
            if feature.role == "state":
                still &= is_still(values, feature=feature, episode_ends=buffer.episode_ends)
    for camera in buffer.schema.with_role("camera"):
        found += camera_trouble(buffer, camera.name, state_is_still=still)
    return found


def at_rows(
    kind: str, rows: np.ndarray, text: str, *, name: str, episode_ends: np.ndarray
) -> Trouble:
    """Trouble of the feature `name` at the buffer's `rows`, of which there is at least one."""
    where = places(rows, episode_ends=episode_ends)
    (episode, step), count = where[0], len(rows)
    text = f"{name}: {text}, first in episode {episode}, step {step}"
    return Trouble(kind=kind, text=text, feature=name, count=count, places=where)
