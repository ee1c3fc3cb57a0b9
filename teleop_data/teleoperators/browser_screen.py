"""What the page shows and says: between the control loop's thread and the page server's."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import simplejpeg

from teleop_data.environment import Observation
from teleop_data.operator import Command, CommandKind, Phase, Status
from teleop_data.schema import Feature
from teleop_data.teleoperators.browser_server import Update
from teleop_data.teleoperators.driver_seat import DriverSeat
from teleop_data.teleoperators.hand_target import HandMapping, HandTarget

JPEG_QUALITY = 85
COMMANDS: tuple[str, ...] = get_args(CommandKind)
OFFERS: dict[Phase, tuple[CommandKind, ...]] = {
    "waiting": ("start", "stop"),
    "recording": ("keep", "drop", "label", "stop"),
    "deciding": ("keep", "drop", "label", "stop"),
}


def words_of(status: Status, *, rate_hz: float | None = None) -> dict[str, Any]:
    """What the page says of `status`, in seconds as well if there is a rate, and its buttons."""
    if status.phase == "waiting":
        state, progress = "waiting for Start", f"next: episode {status.seed}"
    else:
        goal = "goal reached" if status.success else "goal not reached"
        state = "recording" if status.phase == "recording" else f"over, {goal}: keep or drop?"
        progress = f"episode {status.seed}, step {status.num_steps}"
        if rate_hz is not None:
            progress += f", {status.num_steps / rate_hz:.1f} s"
    return {
        "phase": status.phase,
        "state": state,
        "progress": progress,
        "kept": f"{status.num_kept} kept",
        "trouble": status.trouble,
        "offers": list(OFFERS[status.phase]),
    }


class Screen:
    """What the page shows and what it says back; between the loop's and the server's thread."""

    def __init__(
        self,
        mapping: HandMapping | None,
        *,
        seat: DriverSeat,
        cameras: Sequence[Feature],
        labels: Sequence[str],
        title: str,
    ) -> None:
        """Nothing observed and nothing said yet; without a `mapping`, a page without a pad."""
        self._mapping, self._seat, self._cameras = mapping, seat, _shown(cameras)
        self._labels, self._title = tuple(labels), title
        self._lock = threading.Lock()
        self._observation: Observation | None = None
        self._number = 0  # of the observation
        self._encoded: tuple[int, dict[str, bytes]] = 0, {}
        self._words: dict[str, Any] = {
            "phase": "driving",  # until an operator is told otherwise
            "state": "driving, nothing is recorded",
            "progress": "",
            "kept": "",
            "trouble": "",
            "offers": [],
        }
        self._commands: deque[Command] = deque(maxlen=16)

    def put(self, observation: Observation) -> None:
        """The newest observation; from the loop's thread."""
        with self._lock:
            if observation is not self._observation:
                self._observation = observation
                self._number += 1

    def tell(self, words: Mapping[str, Any]) -> None:
        """Other words for the page; from the loop's thread."""
        with self._lock:
            self._words = dict(words)

    def next_command(self) -> Command | None:
        """The oldest button that was not taken yet; from the loop's thread."""
        return self._commands.popleft() if self._commands else None

    def greeting(self) -> Mapping[str, Any]:
        """The reach, the cameras and the labels."""
        cameras = [
            {"name": c.name, "height": c.shape[0], "width": c.shape[1]} for c in self._cameras
        ]
        reach = self._mapping.reach.to_json() if self._mapping else None
        return {"reach": reach, "cameras": cameras, "labels": self._labels, "title": self._title}

    def update(self, page: int, *, shown: int) -> Update:
        """The seat's state and the newest words; pictures if they are newer than `shown`."""
        with self._lock:
            observation, number, words = self._observation, self._number, dict(self._words)
        if self._seat.view().presence == "empty":
            self._seat.take(page)
        seat = self._seat.view()
        is_driver, is_driving = seat.driver == page, words["phase"] in ("driving", "recording")
        words |= {
            "is_driver": is_driver,
            "is_taken": not is_driver and seat.presence == "present",
            "epoch": seat.epoch,
            "target": seat.target.to_json() if seat.target and is_driving else None,
            "watching": "" if is_driver else "Another page drives; this one only shows.",
        }
        if observation is None:
            return Update(words=words)
        if self._mapping:
            words["hand"] = self._mapping.target_of(observation).to_json()
        if number == shown:
            return Update(words=words, number=number)
        return Update(words=words, pictures=self._jpegs(observation, number), number=number)

    def hear(self, page: int, message: Mapping[str, Any]) -> None:
        """A target, a button. ValueError if it is neither."""
        kind = message.get("kind")
        if kind == "take":
            self._seat.take(page)
        elif kind == "alive":
            self._seat.hear(page)
        elif kind == "drive":
            self._drive(page, message)
        elif kind in COMMANDS:
            command = Command(kind=kind, text=str(message.get("text", "")))
            if kind == "label" and command.text not in self._labels:
                raise ValueError(f"no label {command.text!r}; have: {', '.join(self._labels)}")
            with self._lock:
                is_offered = kind in self._words["offers"]
            if is_offered and self._seat.view().driver == page:
                self._commands.append(command)
        else:
            raise ValueError(f"unknown message {kind!r}")

    def _drive(self, page: int, message: Mapping[str, Any]) -> None:
        if self._mapping is None:
            raise ValueError("this page has no pad to drive with")
        target = self._mapping.reach.clip(HandTarget.from_json(message.get("target")))
        if type(epoch := message.get("epoch")) is not int:
            raise ValueError(f"epoch is {epoch!r}, expected an integer")
        self._seat.drive(page, epoch=epoch, target=target)

    def gone(self, page: int) -> None:
        """The seat is empty again if it was this page's."""
        self._seat.leave(page)

    def _jpegs(self, observation: Observation, number: int) -> dict[str, bytes]:
        """By camera; encoded once for all pages, by the server's thread alone."""
        if self._encoded[0] != number:
            pictures = {c.name: _jpeg(observation[c.name]) for c in self._cameras}
            self._encoded = number, pictures
        return self._encoded[1]


def _shown(features: Sequence[Feature]) -> list[Feature]:
    """The cameras that are pictures for people: colour or grey."""
    return [f for f in features if f.role == "camera" and f.shape[2] in (1, 3)]


def _jpeg(picture: np.ndarray) -> bytes:
    colorspace = "RGB" if picture.shape[2] == 3 else "GRAY"
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(picture), quality=JPEG_QUALITY, colorspace=colorspace
    )
