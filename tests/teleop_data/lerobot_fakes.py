"""A LeRobot arm and its leader, of LeRobot's own base classes, without hardware."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.robots import Robot, RobotConfig
from lerobot.teleoperators import Teleoperator, TeleoperatorConfig
from lerobot.utils.errors import DeviceNotConnectedError

from teleop_data.lerobot_robot import LerobotRobot
from teleop_data.teleoperators.lerobot_teleoperator import LerobotTeleoperator

JOINTS = ("shoulder.pos", "elbow.pos", "gripper.pos")
LIMIT = 90.0


@RobotConfig.register_subclass("forcing_fake_arm")
@dataclass(kw_only=True)
class FakeArmConfig(RobotConfig):
    pixels: int = 32


class FakeArm(Robot):
    """Joints that move half the way to what they are told; a camera whose shade is the elbow."""

    config_class, name = FakeArmConfig, "forcing_fake_arm"

    def __init__(self, config: FakeArmConfig) -> None:
        super().__init__(config)
        self.pixels = config.pixels
        self.positions = dict.fromkeys(JOINTS, 0.0)
        self.sent: list[dict[str, Any]] = []
        self.num_connects = 0
        self._is_connected = False

    @property
    def observation_features(self) -> dict[str, Any]:
        side = self.pixels
        pictures = {"front": (side, side, 3), "depth": (side, side, 1)}
        return {**dict.fromkeys(JOINTS, float), **pictures}

    @property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(JOINTS, float)

    @property
    def is_connected(self) -> bool:
        return self._is_connected

    @property
    def is_calibrated(self) -> bool:
        return True

    def connect(self, calibrate: bool = True) -> None:
        self._is_connected, self.num_connects = True, self.num_connects + 1

    def calibrate(self) -> None: ...

    def configure(self) -> None: ...

    def get_observation(self) -> dict[str, Any]:
        if not self._is_connected:
            raise DeviceNotConnectedError("the arm is unplugged")
        shade = int(self.positions["elbow.pos"]) % 256
        return {
            "front": np.full((self.pixels, self.pixels, 3), shade, np.uint8),
            "depth": np.zeros((self.pixels, self.pixels, 1), np.uint16),
            **dict(reversed(self.positions.items())),  # the order of a reply says nothing
        }

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        if not self._is_connected:
            raise DeviceNotConnectedError("the arm is unplugged")
        self.sent.append(action)
        limited = {name: float(np.clip(value, -LIMIT, LIMIT)) for name, value in action.items()}
        for name, value in limited.items():
            self.positions[name] += 0.5 * (value - self.positions[name])
        return limited

    def disconnect(self) -> None:
        self._is_connected = False


@TeleoperatorConfig.register_subclass("forcing_fake_leader")
@dataclass(kw_only=True)
class FakeLeaderConfig(TeleoperatorConfig):
    pass


class FakeLeader(Teleoperator):
    """Gives what its `positions` are, in another order than the arm's."""

    config_class, name = FakeLeaderConfig, "forcing_fake_leader"

    def __init__(self, config: FakeLeaderConfig) -> None:
        super().__init__(config)
        self.positions = dict(zip(reversed(JOINTS), (3.0, 2.0, 1.0), strict=True))
        self._is_connected = False

    @property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(self.positions, float)

    @property
    def feedback_features(self) -> dict[str, Any]:
        return {}

    @property
    def is_connected(self) -> bool:
        return self._is_connected

    @property
    def is_calibrated(self) -> bool:
        return True

    def connect(self, calibrate: bool = True) -> None:
        self._is_connected = True

    def calibrate(self) -> None: ...

    def configure(self) -> None: ...

    def get_action(self) -> dict[str, Any]:
        if not self._is_connected:
            raise DeviceNotConnectedError("the leader is unplugged")
        return dict(self.positions)

    def send_feedback(self, feedback: dict[str, Any]) -> None: ...

    def disconnect(self) -> None:
        self._is_connected = False


def fake_arm(folder: Path) -> FakeArm:
    return FakeArm(FakeArmConfig(calibration_dir=folder))


def fake_leader(folder: Path) -> FakeLeader:
    return FakeLeader(FakeLeaderConfig(calibration_dir=folder))


def fake_environment(folder: str) -> LerobotRobot:
    """What a YAML may name instead of a robot."""
    return LerobotRobot(fake_arm(Path(folder)), rate_hz=50.0)


def fake_teleoperator(environment: LerobotRobot, folder: str) -> LerobotTeleoperator:
    """What a YAML may name instead of a leader."""
    return LerobotTeleoperator(environment, fake_leader(Path(folder)))
