"""The journal: what a cut or a damage at any byte leaves, and what a full disk does to it."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleop_data.journal import Journal, JournalError, JournalWriter
from teleop_data.replay_buffer import ReplayBuffer
from tests.teleop_data.stores import SCHEMA, episode

STEPS = episode(5, seed=3)
FACTS, ATTRIBUTES = {"seed": 3}, {"success": True, "labels": []}


def write(path: Path, *, num_steps: int = 5, end: bool = True) -> list[int]:
    """A journal of `STEPS` with a note after the second; returns its size after every step."""
    writer = JournalWriter(path, schema=SCHEMA, header=FACTS)
    sizes = []
    for step in range(num_steps):
        writer.add_step({name: values[step] for name, values in STEPS.items()})
        sizes.append(path.stat().st_size)
        if step == 1:
            writer.add_note({"label": "cloth", "by": "a person"})
    if end:
        writer.end(ATTRIBUTES)
    writer.close()
    return sizes


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[int]]:
    path = tmp_path_factory.mktemp("journal") / "whole.journal"
    sizes = write(path)
    return path.read_bytes(), sizes


def test_what_was_written_is_read(tmp_path: Path):
    write(tmp_path / "a.journal")
    journal = Journal(tmp_path / "a.journal")
    assert (journal.schema, journal.facts, journal.attributes) == (SCHEMA, FACTS, ATTRIBUTES)
    assert journal.notes == [(2, {"label": "cloth", "by": "a person"})]
    assert (journal.num_steps, journal.num_torn_bytes) == (5, 0)
    for name, rows in journal.episode().items():
        assert rows.shape == STEPS[name].shape
        np.testing.assert_array_equal(rows[:], STEPS[name])
        np.testing.assert_array_equal(rows[1:3], STEPS[name][1:3])
        np.testing.assert_array_equal(rows[4], STEPS[name][4])
        assert rows[:].dtype == STEPS[name].dtype


def test_a_journal_is_appended_to_a_store_as_it_is(tmp_path: Path):
    write(tmp_path / "a.journal")
    buffer = ReplayBuffer.create(tmp_path / "a.zarr", SCHEMA)
    buffer.append_episode(Journal(tmp_path / "a.journal").episode())
    for name, values in ReplayBuffer.open(tmp_path / "a.zarr").episode(0).items():
        np.testing.assert_array_equal(values, STEPS[name])


@given(data=st.data())
def test_a_cut_anywhere_leaves_every_step_written_before_it(
    whole: tuple[bytes, list[int]], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    content, sizes = whole
    cut = data.draw(st.integers(0, len(content) - 1))
    path = tmp_path_factory.mktemp("cut") / "cut.journal"
    path.write_bytes(content[:cut])
    expected = sum(size <= cut for size in sizes)
    try:
        journal = Journal(path)
    except JournalError:
        assert expected == 0
        return
    assert journal.num_steps == expected
    assert journal.attributes is None
    np.testing.assert_array_equal(journal.episode()["front"][:], STEPS["front"][:expected])


@given(data=st.data())
def test_a_damaged_byte_ends_the_journal_before_it(
    whole: tuple[bytes, list[int]], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    content, sizes = whole
    at = data.draw(st.integers(sizes[0], len(content) - 1))
    damaged = bytearray(content)
    damaged[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("damaged") / "damaged.journal"
    path.write_bytes(bytes(damaged))
    journal = Journal(path)
    assert journal.num_steps == sum(size <= at for size in sizes)
    assert journal.attributes is None
    assert journal.num_torn_bytes > 0


def test_a_full_disk_is_told_and_leaves_the_whole_steps(tmp_path: Path):
    path = tmp_path / "full.journal"
    writer = JournalWriter(path, schema=SCHEMA, header=FACTS)
    steps = [{name: values[i] for name, values in STEPS.items()} for i in range(5)]
    writer.add_step(steps[0])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            writer.add_step(steps[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    writer.add_step(steps[2])  # room again
    writer.end({})
    writer.close()
    journal = Journal(path)
    assert journal.num_torn_bytes == 0
    np.testing.assert_array_equal(journal.episode()["state"][:], STEPS["state"][[0, 2]])


def test_an_existing_journal_is_never_written_over(tmp_path: Path):
    write(tmp_path / "a.journal")
    with pytest.raises(FileExistsError):
        JournalWriter(tmp_path / "a.journal", schema=SCHEMA, header={})
    assert Journal(tmp_path / "a.journal").num_steps == 5


def test_what_is_no_journal_is_refused(tmp_path: Path):
    for content in (b"", b"anything else"):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(JournalError, match="not a journal"):
            Journal(tmp_path / "x")
