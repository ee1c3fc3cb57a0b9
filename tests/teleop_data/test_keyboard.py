"""The keyboard on real pseudo-terminals: what keys move, what they command, and a whole task."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sim.tasks.pick_place import pick_place_environment
from teleop_data.operator import Command, Phase, Status
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.teleoperators.hand_target import PlanarHand
from teleop_data.teleoperators.keyboard import Keyboard, TerminalKeys
from tests.contracts.teleoperator_contract import TeleoperatorContract

ROOT = Path(__file__).parents[2]
HAND = PlanarHand(low=(-0.26, 0.10), high=(0.26, 0.56))
START = {"state": np.array([0.1, 0.3, 0.0], np.float32)}


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """(the person's end, the program's end)."""
    person, program = pty.openpty()
    yield person, program
    os.close(person)
    os.close(program)


def keyboard(program: int, *, stride: float = 0.02) -> Keyboard:
    return Keyboard(
        pick_place_environment(),
        mapping=HAND,
        stride=stride,
        keys=TerminalKeys(program),
        report=lambda text: None,
    )


def commands(driver: Keyboard) -> list[Command]:
    return list(iter(driver.poll, None))


def status(phase: Phase) -> Status:
    return Status(phase=phase, seed=0, num_kept=0)


def test_each_press_is_a_stride_and_space_closes_and_opens(terminal: tuple[int, int]):
    person, program = terminal
    driver = keyboard(program)
    driver.reset(0)
    np.testing.assert_allclose(driver.act(START), [0.1, 0.3, 0.0], atol=1e-6)
    for keys, expected in [
        (b"d", [0.12, 0.3, 0.0]),
        (b"aaw", [0.08, 0.32, 0.0]),
        (b"s ", [0.08, 0.30, 1.0]),
        (b" ", [0.08, 0.30, 0.0]),
        (b"\x1b[A?", [0.08, 0.30, 0.0]),  # an arrow, and a key that means nothing
        (b"d" * 50, [0.26, 0.30, 0.0]),  # no further than the reach
    ]:
        os.write(person, keys)
        # the target counts, not where the hand has come to meanwhile
        np.testing.assert_allclose(driver.act(START), expected, atol=1e-6)
    driver.reset(1)
    np.testing.assert_allclose(driver.act(START), [0.1, 0.3, 0.0], atol=1e-6)


def test_presses_before_a_reset_move_nothing(terminal: tuple[int, int]):
    person, program = terminal
    driver = keyboard(program)
    os.write(person, b"ddd")
    assert driver.poll() is None
    driver.reset(0)
    np.testing.assert_allclose(driver.act(START), [0.1, 0.3, 0.0], atol=1e-6)


def test_commands_come_in_order_and_enter_means_what_can_be_done(terminal: tuple[int, int]):
    person, program = terminal
    driver = keyboard(program)
    driver.tell(status("waiting"))
    os.write(person, b"\r")
    assert commands(driver) == [Command(kind="start")]
    driver.tell(status("recording"))
    os.write(person, b"lwet clothX\x7f\n\x7fq\r")
    assert commands(driver) == [
        Command(kind="label", text="wet cloth"),
        Command(kind="drop"),
        Command(kind="stop"),
        Command(kind="keep"),
    ]
    driver.reset(0)
    np.testing.assert_allclose(driver.act(START), [0.1, 0.3, 0.0], atol=1e-6)


def test_the_terminal_is_given_back_as_it_was(terminal: tuple[int, int]):
    _, program = terminal
    before = termios.tcgetattr(program)
    driver = keyboard(program)
    assert termios.tcgetattr(program)[3] & (termios.ECHO | termios.ICANON) == 0
    assert termios.tcgetattr(program)[3] & termios.ISIG  # Ctrl-C works
    driver.close()
    assert termios.tcgetattr(program) == before


def test_without_a_terminal_it_says_what_would_work(tmp_path: Path):
    with (
        (tmp_path / "x").open("w") as file,
        pytest.raises(ValueError, match="run it in a terminal"),
    ):
        TerminalKeys(file.fileno())


def test_a_person_solves_the_task_with_keys_alone(terminal: tuple[int, int]):
    person, program = terminal
    environment = pick_place_environment()
    driver = keyboard(program, stride=0.01)
    observation = environment.reset(4)
    driver.reset(4)
    aims = iter([environment.physics.object_position, environment.physics.goal_position])
    aim, target = next(aims), observation["state"][:2].astype(float)
    success = False
    for _ in range(environment.max_steps):
        way = aim - target
        strides = np.clip(np.round(way / 0.01), -3, 3).astype(int)  # three presses a step
        target = target + 0.01 * strides
        keys = ("d" if strides[0] > 0 else "a") * abs(strides[0])
        keys += ("w" if strides[1] > 0 else "s") * abs(strides[1])
        if not keys and np.linalg.norm(environment.physics.hand - aim) < 0.01:
            keys, aim = " ", next(aims, aim)
        os.write(person, keys.encode())
        result = environment.step(driver.act(observation))
        observation = result.observation
        if success := result.success:
            break
    assert success


class Reader:
    """What the program has said to the person so far; its threads speak in any order."""

    def __init__(self, person: int) -> None:
        self._person, self._text = person, ""

    def until(self, words: str, *, timeout_s: float = 40.0) -> None:
        began_s = time.monotonic()
        while words not in self._text:
            is_said = select.select([self._person], [], [], 1.0)[0]
            self._text += os.read(self._person, 4096).decode() if is_said else ""
            assert time.monotonic() - began_s < timeout_s, f"never said {words!r}: {self._text}"


def test_the_command_is_driven_from_a_terminal(tmp_path: Path):
    output = tmp_path / "typed.zarr"
    person, program = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "teleop_data.record", f"output={output}", "teleoperator=keyboard"],
        cwd=ROOT,
        stdin=program,
        stdout=program,
        stderr=program,
    )
    os.close(program)
    reader = Reader(person)
    try:
        reader.until("Enter start, keep")
        os.write(person, b"\r")
        time.sleep(0.35)
        os.write(person, b"ddd ")
        time.sleep(0.35)
        os.write(person, b"lgood\r")
        reader.until("labelled: good")
        os.write(person, b"\r")
        reader.until("kept the episode of seed 0")
        reader.until("seed 1, 1 kept")
        os.write(person, b"\r")
        time.sleep(0.35)
        os.write(person, b"\x7f")
        reader.until("dropped the episode of seed 1")
        os.write(person, b"q")
        reader.until("1 episodes, 1 of them finished")
        process.wait(30)
    finally:
        process.kill()
        process.wait()
    os.close(person)
    assert process.returncode == 0
    buffer = ReplayBuffer.open(output)
    (attributes,), actions = buffer.episode_attributes, buffer.episode(0)["action"]
    assert [label["text"] for label in attributes["labels"]] == ["good"]
    assert 2 < attributes["labels"][0]["step"] < len(actions)
    np.testing.assert_allclose(actions[-1] - actions[0], [0.06, 0.0, 1.0], atol=1e-6)


class TestKeyboard(TeleoperatorContract):
    def make(self):
        person, program = pty.openpty()  # closed with the process; nobody presses anything
        del person
        return pick_place_environment(), keyboard(program)
