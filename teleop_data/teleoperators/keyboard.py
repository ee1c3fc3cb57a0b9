"""Teleoperation from the keys of a terminal: each press moves the hand's target by a stride.

    a d, w s   left right, up down on the pad     Enter      start, keep
    r f        higher, lower                      Backspace  drop
    z x        turn                               l          label: type it, Enter
    Space      close or open the fingers          q          stop

A terminal tells presses and repeats, never releases, so a key is a stride and not a speed. The
terminal reads keys singly and shows none of them until `close`; Ctrl-C works as ever.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from teleop_data.environment import Environment, Observation
from teleop_data.operator import Command, CommandKind, Status
from teleop_data.teleoperators.hand_target import HandMapping, HandTarget

MOVES = {"a": (-1, 0), "d": (1, 0), "s": (0, -1), "w": (0, 1)}  # right, up on the pad
LIFTS = {"r": 1, "f": -1}
TURNS = {"z": 1, "x": -1}
GRIP, LABEL, ENTER = " ", "l", "\n"
COMMANDS: Mapping[str, CommandKind] = {"\x7f": "drop", "\b": "drop", "q": "stop"}
MAX_LABEL = 200  # characters

HELP = (
    "a d w s move, r f height, z x turn, Space fingers | Enter start, keep | Backspace drop | "
    "l label | q stop"
)


class TerminalKeys:
    """Keys of a terminal, one character each, without waiting for a line or for a key."""

    def __init__(self, file: int | None = None) -> None:
        """Take over the terminal at file descriptor `file` (None: standard input).

        Raises:
            ValueError: it is no terminal.
        """
        self._file = sys.stdin.fileno() if file is None else file
        if not os.isatty(self._file):
            raise ValueError(
                "the keyboard teleoperator reads keys of a terminal, and standard input is none; "
                "run it in a terminal, or choose teleoperator=browser_planar or scripted"
            )
        self._before = termios.tcgetattr(self._file)
        # keys one by one and unseen; Ctrl-C stays a signal and printed lines stay lines
        tty.setcbreak(self._file, termios.TCSANOW)

    def read(self) -> str:
        """What was pressed since the last call; Enter is a line feed."""
        pressed = b""
        while select.select([self._file], [], [], 0)[0]:
            part = os.read(self._file, 1024)
            if not part:  # the terminal is gone
                break
            pressed += part
        return pressed.decode(errors="ignore").replace("\r", "\n")

    def close(self) -> None:
        """Give the terminal back as it was."""
        termios.tcsetattr(self._file, termios.TCSANOW, self._before)


class Keyboard:
    """A Teleoperator and an Operator. The terminal is its own until `close`."""

    def __init__(
        self,
        environment: Environment,
        *,
        mapping: HandMapping,
        stride: float,
        turn_rad: float = 0.1,
        keys: TerminalKeys | None = None,
        report: Callable[[str], None] = print,
    ) -> None:
        """Take over the terminal.

        Args:
            environment: what is driven.
            mapping: from hand targets to its actions.
            stride: of one press, in the mapping's unit.
            turn_rad: of one press.
            keys: None is standard input's.
            report: told what the keys are and what is asked of the operator.

        Raises:
            KeyError, ValueError: the mapping does not fit the environment, a stride is not
                positive, or there is no terminal.
        """
        if stride <= 0 or turn_rad <= 0:
            raise ValueError(f"strides must be positive, got {stride} and {turn_rad}")
        mapping.check(environment.schema)
        self._mapping, self._dtype = mapping, environment.schema.action.dtype
        self._stride, self._turn_rad = stride, turn_rad
        self._keys = keys or TerminalKeys()
        self._report = report
        self._commands: deque[Command] = deque()
        self._pending = ""  # presses that `act` has not turned into moves
        self._label: str | None = None  # the label being typed
        self._target: HandTarget | None = None
        self._status: Status | None = None

    def reset(self, seed: int) -> None:
        """Begin where the hand is; what was pressed before moves nothing."""
        self._target, self._pending = None, ""

    def act(self, observation: Observation) -> np.ndarray:
        """The action (A,) that the presses so far mean."""
        self._listen()
        if self._target is None:
            self._target = self._mapping.target_of(observation)
        for key in self._pending:
            self._target = self._mapping.reach.clip(self._moved(self._target, key))
        self._pending = ""
        return self._mapping.action_of(self._target).astype(self._dtype)

    def poll(self) -> Command | None:
        """The oldest command that was typed and not given out yet."""
        self._listen()
        return self._commands.popleft() if self._commands else None

    def tell(self, status: Status) -> None:
        """Say what can be done now, whenever that has changed."""
        before, self._status = self._status, status
        if before is not None and before.phase == status.phase:
            return
        if status.phase == "waiting":
            self._report(f"episode of seed {status.seed}, {status.num_kept} kept. {HELP}")
        elif status.phase == "deciding":
            goal = "goal reached" if status.success else "goal not reached"
            self._report(f"over: {status.num_steps} steps, {goal}. Enter keep, Backspace drop")

    def close(self) -> None:
        """Give the terminal back."""
        self._keys.close()

    def _listen(self) -> None:
        for key in self._keys.read():
            if self._label is not None:
                self._type(key)
            elif key == ENTER:
                is_waiting = self._status is not None and self._status.phase == "waiting"
                self._commands.append(Command(kind="start" if is_waiting else "keep"))
            elif key in COMMANDS:
                self._commands.append(Command(kind=COMMANDS[key]))
            elif key == LABEL:
                self._label = ""
                self._report("label: type it, then Enter")
            else:
                self._pending += key

    def _type(self, key: str) -> None:
        """One key of a label."""
        assert self._label is not None
        if key == ENTER:
            text, self._label = self._label.strip(), None
            if text:
                self._commands.append(Command(kind="label", text=text))
                self._report(f"labelled: {text}")
        elif COMMANDS.get(key) == "drop":
            self._label = self._label[:-1]
        elif key.isprintable() and len(self._label) < MAX_LABEL:
            self._label += key

    def _moved(self, target: HandTarget, key: str) -> HandTarget:
        """`target` after one press; unchanged for a key that moves nothing."""
        if key in MOVES:
            reach = self._mapping.reach
            for direction, share in zip((reach.right, reach.up), MOVES[key], strict=True):
                signed = share * self._stride * (-1 if direction.startswith("-") else 1)
                axis = direction[-1]
                target = replace(target, **{axis: getattr(target, axis) + signed})
        elif key in LIFTS:
            target = replace(target, z=target.z + LIFTS[key] * self._stride)
        elif key in TURNS:
            target = replace(target, yaw=target.yaw + TURNS[key] * self._turn_rad)
        elif key == GRIP:
            target = replace(target, closure=float(target.closure < 0.5))
        return target
