"""LeRobot's devices: made from a description, and their dicts of numbers as vectors.

A LeRobot robot or teleoperator names every number: {"shoulder.pos": 12.3, ...}. A vector holds them
in the order in which the device lists them, as LeRobot's own datasets do.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Literal, Protocol

import numpy as np

Kind = Literal["robot", "teleoperator"]


class RobotDevice(Protocol):
    """What is used of `lerobot.robots.Robot`."""

    name: str

    @property
    def observation_features(self) -> dict[str, Any]:
        """`float`, or a picture's (H, W, C), by name."""
        ...

    @property
    def action_features(self) -> dict[str, Any]:
        """`float` by name."""
        ...

    @property
    def is_connected(self) -> bool:
        """Whether it can be used."""
        ...

    def connect(self, calibrate: bool = True) -> None:
        """Make it usable."""
        ...

    def get_observation(self) -> dict[str, Any]:
        """Numbers and pictures by name."""
        ...

    def send_action(self, action: dict[str, Any], /) -> dict[str, Any]:
        """Command it; gives what was really sent, its own limits heeded."""
        ...

    def disconnect(self) -> None:
        """Let it go."""
        ...


class TeleoperatorDevice(Protocol):
    """What is used of `lerobot.teleoperators.Teleoperator`."""

    name: str

    @property
    def action_features(self) -> dict[str, Any]:
        """`float` by name, or {"names": {name: index}, ...}."""
        ...

    @property
    def is_connected(self) -> bool:
        """Whether it can be used."""
        ...

    def connect(self, calibrate: bool = True) -> None:
        """Make it usable."""
        ...

    def get_action(self) -> dict[str, Any]:
        """Numbers by name."""
        ...

    def disconnect(self) -> None:
        """Let it go."""
        ...


def make_device(kind: Kind, description: Mapping[str, Any]) -> Any:
    """The unconnected device that LeRobot makes of `description`: its `type` and its config's keys,
    {"type": "so101_leader", "port": "/dev/ttyACM0", "id": "mine"}.

    Raises:
        ImportError: lerobot, or what this device needs, is not installed.
        ValueError: the type is unknown, or LeRobot refuses a key.
    """
    draccus = importlib.import_module("draccus")
    if kind == "robot":
        import lerobot.robots as devices

        registry, make = devices.RobotConfig, devices.make_robot_from_config
    else:
        import lerobot.teleoperators as devices

        registry, make = devices.TeleoperatorConfig, devices.make_teleoperator_from_config
    _register(devices, registry, str(description.get("type")))
    known = sorted(registry.get_known_choices())
    if description.get("type") not in known:
        raise ValueError(
            f"LeRobot has no {kind} of type {description.get('type')!r}; have: {', '.join(known)}"
        )
    try:
        config = draccus.decode(registry, dict(description))
    except draccus.utils.DraccusException as error:
        raise ValueError(f"LeRobot refuses {dict(description)}: {error}") from error
    return make(config)


def _register(devices: ModuleType, registry: Any, wanted: str) -> None:
    """Import LeRobot's own devices, and plug-ins if `wanted` is none of those: that names them."""
    if wanted in registry.get_known_choices():
        return
    for module in pkgutil.iter_modules(devices.__path__):
        if module.ispkg:
            importlib.import_module(f"{devices.__name__}.{module.name}")
    if wanted not in registry.get_known_choices():
        from lerobot.utils.import_utils import register_third_party_plugins

        register_third_party_plugins()


def scalar_names(features: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the numbers among a device's `features`, in its order."""
    if isinstance(names := features.get("names"), Mapping):
        return tuple(sorted(names, key=lambda name: names[name]))
    return tuple(name for name, kind in features.items() if kind in (float, int, bool))


def vector_of(values: Mapping[str, Any], names: Sequence[str]) -> np.ndarray:
    """(len(names),) float32. KeyError for a missing name, with those there are."""
    missing = [name for name in names if name not in values]
    if missing:
        raise KeyError(f"lacks {missing}; has: {', '.join(map(str, values)) or 'nothing'}")
    return np.array([float(values[name]) for name in names], np.float32)
