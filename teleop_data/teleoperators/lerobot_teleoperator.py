"""Any LeRobot teleoperator as ours: a leader arm, a phone, a gamepad, a SpaceMouse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from teleop_data.environment import Environment, Observation
from teleop_data.lerobot_devices import (
    TeleoperatorDevice,
    make_device,
    scalar_names,
    vector_of,
)
from teleop_data.lerobot_robot import LerobotRobot

Values = Mapping[str, Any]
Processor = Callable[[tuple[Values, Values]], Values]


class LerobotTeleoperator:
    """A Teleoperator that asks a LeRobot device for every action.

    Attributes:
        device: LeRobot's device.
        names: of the action's entries, as the device or its processor calls them.
    """

    def __init__(
        self,
        environment: Environment,
        device: TeleoperatorDevice | Mapping[str, Any],
        *,
        names: Sequence[str] | None = None,
        processor: Processor | None = None,
    ) -> None:
        """Drive `environment` with `device`, connected here.

        Args:
            environment: what is driven. A `LerobotRobot` knows the names of its action's entries.
            device: a device, or what `lerobot_devices.make_device` makes one of.
            names: of the action's entries in order; None takes those of a `LerobotRobot`, else
                those of the device in its order.
            processor: from (the device's values, the robot's raw observation) to named values, as
                LeRobot's own pipelines are called; a phone or a keyboard needs one. None: as given.

        Raises:
            ValueError: the action has another number of entries than there are names.
            KeyError: the device does not give a name, and no processor is there that might.
            ConnectionError: the device cannot be reached.
        """
        self.device: TeleoperatorDevice = (
            make_device("teleoperator", device) if isinstance(device, Mapping) else device
        )
        offered = scalar_names(self.device.action_features)
        if names is None:
            names = environment.action_names if isinstance(environment, LerobotRobot) else offered
        self.names = tuple(names)
        action = environment.schema.action
        if action.shape != (len(self.names),):
            raise ValueError(
                f"the action has shape {action.shape}, but there are {len(self.names)} names: "
                f"{', '.join(self.names)}; give names= in the action's order"
            )
        unknown = [name for name in self.names if name not in offered]
        if processor is None and unknown:
            raise KeyError(
                f"{self.device.name} gives no {unknown}; it gives: {', '.join(offered)}. "
                "A processor could rename them"
            )
        self._environment, self._processor, self._dtype = environment, processor, action.dtype
        if not self.device.is_connected:
            self.device.connect()

    def reset(self, seed: int) -> None:
        """Nothing: the device is where the person holds it."""

    def act(self, observation: Observation) -> np.ndarray:
        """The action (A,) that the device gives now.

        Raises:
            ConnectionError: it has gone.
            KeyError: it does not give one of the names.
            ValueError: a value is not finite.
        """
        values: Values = self.device.get_action()
        if self._processor is not None:
            environment = self._environment
            raw = environment.raw_observation if isinstance(environment, LerobotRobot) else {}
            values = self._processor((values, raw or observation))
        action = vector_of(values, self.names)
        if not np.isfinite(action).all():
            raise ValueError(f"{self.device.name} gave what is not finite: {dict(values)}")
        return action.astype(self._dtype)

    def close(self) -> None:
        """Disconnect the device."""
        if self.device.is_connected:
            self.device.disconnect()
