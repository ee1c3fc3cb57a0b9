"""Sole use of a folder."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from teleop_data.sole_use import InUseError, SoleUse

HOLDER = """
import sys
from pathlib import Path
from teleop_data.sole_use import SoleUse
with SoleUse(Path(sys.argv[1])):
    print("taken", flush=True)
    sys.stdin.read()
"""


def holding(folder: Path) -> subprocess.Popen[str]:
    """Another process that has taken `folder`; it lets go when its input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    return process


def test_another_process_is_turned_away_until_the_end_of_the_first(tmp_path: Path):
    with holding(tmp_path) as process:
        with pytest.raises(InUseError, match=f"another process writes to {tmp_path}"):
            SoleUse(tmp_path)
        process.communicate("")
    SoleUse(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


def test_one_that_was_killed_has_let_go(tmp_path: Path):
    with holding(tmp_path) as process:
        process.kill()
    SoleUse(tmp_path).close()


def test_who_waits_comes_next(tmp_path: Path):
    came = threading.Event()

    def wait() -> None:
        with SoleUse(tmp_path, waits=True):
            came.set()

    with SoleUse(tmp_path):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not came.wait(0.2)
    assert came.wait(10.0)
    thread.join()
