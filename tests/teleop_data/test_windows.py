"""Windows never cross an episode, cover every step, and say what is padded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleop_data.windows import rows_of_episodes, split_episodes, window_indices

lengths = st.lists(st.integers(1, 12), min_size=1, max_size=8)
sizes = st.integers(1, 15)


def all_windows(episode_ends: np.ndarray, *, context: int, horizon: int):
    episodes = np.arange(len(episode_ends))
    rows, owners = rows_of_episodes(episodes, episode_ends=episode_ends)
    starts = np.concatenate([[0], episode_ends[:-1]])[owners]
    ends = episode_ends[owners]
    window = window_indices(rows, starts=starts, ends=ends, context=context, horizon=horizon)
    return rows, starts[:, None], ends[:, None], window


@given(lengths, sizes, sizes)
def test_windows(lengths: list[int], context: int, horizon: int) -> None:
    episode_ends = np.cumsum(lengths)
    rows, starts, ends, window = all_windows(episode_ends, context=context, horizon=horizon)
    num_windows = episode_ends[-1]
    assert window.observation.shape == window.observation_is_padded.shape == (num_windows, context)
    assert window.action.shape == window.action_is_padded.shape == (num_windows, context + horizon)
    # every step is the newest observation of exactly one window, and never padded there
    np.testing.assert_array_equal(window.observation[:, -1], np.arange(num_windows))
    assert not window.observation_is_padded[:, -1].any()
    # action[t], answered to the observation at t, is in the middle
    np.testing.assert_array_equal(window.action[:, context], rows)
    assert not window.action_is_padded[:, context].any()
    for taken, is_padded, first in [
        (window.observation, window.observation_is_padded, 1 - context),
        (window.action, window.action_is_padded, -context),
    ]:
        assert ((taken >= starts) & (taken < ends)).all(), "crosses an episode"
        wished = rows[:, None] + first + np.arange(taken.shape[1])
        is_inside = (wished >= starts) & (wished < ends)
        np.testing.assert_array_equal(is_padded, ~is_inside)
        np.testing.assert_array_equal(taken[is_inside], wished[is_inside])
        before, after = wished < starts, wished >= ends
        np.testing.assert_array_equal(taken[before], np.broadcast_to(starts, taken.shape)[before])
        np.testing.assert_array_equal(taken[after], np.broadcast_to(ends - 1, taken.shape)[after])


def test_one_window_by_hand() -> None:
    """Episodes of 3 and 4 steps; step 1 of the second, two ticks of context, horizon 4."""
    window = window_indices(
        np.array([4]), starts=np.array([3]), ends=np.array([7]), context=2, horizon=4
    )
    assert window.observation.tolist() == [[3, 4]]
    assert window.action.tolist() == [[3, 3, 4, 5, 6, 6]]
    assert window.observation_is_padded.tolist() == [[False, False]]
    assert window.action_is_padded.tolist() == [[True, False, False, False, False, True]]


def test_refusals() -> None:
    row, start, end = np.array([4]), np.array([3]), np.array([7])
    for context, horizon in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match=f"at least 1, got {context} and {horizon}"):
            window_indices(row, starts=start, ends=end, context=context, horizon=horizon)
    for outside in (2, 7):
        with pytest.raises(ValueError, match="in its episode"):
            window_indices(np.array([outside]), starts=start, ends=end, context=1, horizon=1)
    for episode in (-1, 2):
        with pytest.raises(ValueError, match=rf"no episodes \[{episode}\]; have 0\.\.1"):
            rows_of_episodes(np.array([episode]), episode_ends=np.array([3, 7]))


@given(lengths, st.data())
def test_rows_of_episodes(lengths: list[int], data: st.DataObject) -> None:
    episode_ends = np.cumsum(lengths)
    chosen = data.draw(st.lists(st.sampled_from(range(len(lengths))), unique=True))
    rows, owners = rows_of_episodes(np.array(chosen, int), episode_ends=episode_ends)
    assert rows.dtype == owners.dtype == np.int64
    owner_of_row = np.repeat(np.arange(len(lengths)), lengths)
    assert sorted(rows) == np.flatnonzero(np.isin(owner_of_row, chosen)).tolist()
    np.testing.assert_array_equal(owners, owner_of_row[rows])


@given(st.integers(1, 60), st.floats(0, 0.999), st.integers(0, 2**32))
def test_split(num_episodes: int, share: float, seed: int) -> None:
    training, validation = split_episodes(num_episodes, validation_share=share, seed=seed)
    assert sorted([*training, *validation]) == list(range(num_episodes))
    assert (np.diff(training) > 0).all()
    assert (np.diff(validation) > 0).all()
    assert len(validation) == min(round(num_episodes * share), num_episodes - 1)
    again = split_episodes(num_episodes, validation_share=share, seed=seed)
    np.testing.assert_array_equal(training, again[0])
    np.testing.assert_array_equal(validation, again[1])


def test_split_depends_on_the_seed_and_refuses() -> None:
    splits = {tuple(split_episodes(50, validation_share=0.2, seed=s)[1]) for s in range(5)}
    assert len(splits) == 5
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"\[0, 1\)"):
            split_episodes(5, validation_share=share, seed=0)
    with pytest.raises(ValueError, match="at least one episode"):
        split_episodes(0, validation_share=0.1, seed=0)
