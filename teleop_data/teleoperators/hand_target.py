"""Hand targets: where a person points, and the action vectors that mean it.

page, gamepad --HandTarget--> stride_towards --HandTarget--> HandMapping --> action (A,)
                as limits allow    as speed allows              as the schema has it
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from teleop_data.environment import Observation
from teleop_data.schema import Schema

Direction = Literal["x", "-x", "y", "-y"]
DIRECTIONS: tuple[Direction, ...] = ("x", "-x", "y", "-y")


@dataclass(frozen=True, kw_only=True)
class HandTarget:
    """Where the hand shall be. What a robot does not have stays 0.

    Attributes:
        x, y, z: position in the environment's unit and frame.
        yaw: about the vertical, rad.
        closure: of the gripper, 0 open to 1 closed.
    """

    x: float
    y: float
    z: float = 0.0
    yaw: float = 0.0
    closure: float = 0.0

    @property
    def position(self) -> np.ndarray:
        """(3,) x, y, z."""
        return np.array([self.x, self.y, self.z])

    def to_json(self) -> dict[str, float]:
        """A JSON-ready dict; `from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> HandTarget:
        """The target that `to_json` wrote. ValueError unless it is five finite numbers."""
        names = {"x", "y", "z", "yaw", "closure"}
        if not isinstance(data, Mapping) or set(data) != names:
            raise ValueError(f"not a hand target: {data!r}; expected {', '.join(sorted(names))}")
        for name, value in data.items():
            if type(value) not in (int, float) or not math.isfinite(value):
                raise ValueError(f"hand target: {name} is {value!r}, expected a finite number")
        return cls(**{name: float(value) for name, value in data.items()})


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What a hand can be told, and how it is laid out on a pad seen from above.

    Attributes:
        low, high: limits of every entry. Entries whose limits are equal are not offered.
        right, up: what the pad's directions are in the environment's frame.
        unit: of the position.
    """

    low: HandTarget
    high: HandTarget
    right: Direction = "x"
    up: Direction = "y"
    unit: str = "m"

    def __post_init__(self) -> None:
        low, high = self.low.to_json(), self.high.to_json()
        for name in low:
            if low[name] > high[name]:
                raise ValueError(f"{name}: low {low[name]} is above high {high[name]}")
        if low["x"] == high["x"] or low["y"] == high["y"]:
            raise ValueError("x and y need room between low and high; the pad has two directions")
        if self.right not in DIRECTIONS or self.up not in DIRECTIONS:
            raise ValueError(f"right {self.right!r}, up {self.up!r}: each one of {DIRECTIONS}")
        if self.right[-1] == self.up[-1]:
            raise ValueError(f"right {self.right!r} and up {self.up!r} are the same axis")

    def clip(self, target: HandTarget) -> HandTarget:
        """The nearest target within the limits."""
        low, high = self.low.to_json(), self.high.to_json()
        clipped = {n: min(max(v, low[n]), high[n]) for n, v in target.to_json().items()}
        return HandTarget(**clipped)

    def to_json(self) -> dict[str, Any]:
        """What the page needs to know."""
        return asdict(self)


class HandMapping(Protocol):
    """Between hand targets and one robot's action vector."""

    @property
    def reach(self) -> Reach:
        """The limits, and the pad's directions."""
        ...

    def check(self, schema: Schema) -> None:
        """Raise ValueError or KeyError unless `schema` has the action and state of this mapping."""
        ...

    def target_of(self, observation: Observation) -> HandTarget:
        """Where the hand is: the target that would hold it still."""
        ...

    def action_of(self, target: HandTarget) -> np.ndarray:
        """(A,) float32 the action that means `target`."""
        ...


class PlanarHand:
    """Actions (x, y) or (x, y, closure), absolute; the state begins with the same numbers."""

    def __init__(
        self,
        *,
        low: Sequence[float],
        high: Sequence[float],
        gripper: bool = True,
        state: str = "state",
        right: Direction = "x",
        up: Direction = "y",
        unit: str = "m",
    ) -> None:
        """A hand over a plane.

        Args:
            low, high: (2,) limits of x and y.
            gripper: whether the action has a third entry, the closure.
            state: the feature whose first entries are where the hand is.
            right, up: what the pad's directions are; up="-y" where y points down.
            unit: of x and y, "" where there is none.

        Raises:
            ValueError: the limits or directions make no pad.
        """
        (low_x, low_y), (high_x, high_y) = low, high
        self._size, self._state = 2 + gripper, state
        self.reach = Reach(
            low=HandTarget(x=low_x, y=low_y),
            high=HandTarget(x=high_x, y=high_y, closure=float(gripper)),
            right=right,
            up=up,
            unit=unit,
        )

    def check(self, schema: Schema) -> None:
        """Raise ValueError or KeyError unless `schema` has this action and state."""
        _check_vector(schema, schema.action.name, size=self._size, exactly=True)
        _check_vector(schema, self._state, size=self._size, exactly=False)

    def target_of(self, observation: Observation) -> HandTarget:
        """Where the hand is."""
        x, y, *rest = (float(v) for v in observation[self._state][: self._size])
        return HandTarget(x=x, y=y, closure=rest[0] if rest else 0.0)

    def action_of(self, target: HandTarget) -> np.ndarray:
        """(2,) or (3,) float32."""
        return np.array([target.x, target.y, target.closure][: self._size], np.float32)


class ArmHand:
    """Actions (10,): position, two columns of the rotation matrix, opening; absolute, base frame.

    The hand keeps the inclination of `columns` and turns about the vertical. An inclination that
    something else gave it is lost with the first action.
    """

    def __init__(
        self,
        *,
        low: Sequence[float],
        high: Sequence[float],
        max_opening: float,
        max_yaw: float = 1.5,
        columns: Sequence[float] = (0, 1, 0, 1, 0, 0),
        state: str = "state",
        right: Direction = "-y",
        up: Direction = "x",
    ) -> None:
        """A hand in space.

        Args:
            low, high: (3,) m, limits of the position.
            max_opening: between the fingers at closure 0, m.
            max_yaw: how far the hand turns either way, rad.
            columns: (6,) the first two columns of its rotation at yaw 0; the default points down,
                fingers opening along the base's y.
            state: the feature that holds the hand as an action does.
            right, up: what the pad's directions are; the default looks from behind the base.

        Raises:
            ValueError: the limits or directions make no pad, or no opening.
        """
        if max_opening <= 0:
            raise ValueError(f"max_opening must be positive, got {max_opening} m")
        (low_x, low_y, low_z), (high_x, high_y, high_z) = low, high
        self._max_opening, self._state = max_opening, state
        self._columns = np.array(columns, float).reshape(2, 3).T  # (3, 2)
        self.reach = Reach(
            low=HandTarget(x=low_x, y=low_y, z=low_z, yaw=-max_yaw),
            high=HandTarget(x=high_x, y=high_y, z=high_z, yaw=max_yaw, closure=1.0),
            right=right,
            up=up,
        )

    def check(self, schema: Schema) -> None:
        """Raise ValueError or KeyError unless `schema` has this action and state."""
        _check_vector(schema, schema.action.name, size=10, exactly=True)
        _check_vector(schema, self._state, size=10, exactly=True)

    def target_of(self, observation: Observation) -> HandTarget:
        """Where the hand is, and the yaw that comes nearest to how it is turned."""
        state = observation[self._state].astype(float)
        x, y, z = state[:3].tolist()
        columns = state[3:9].reshape(2, 3).T
        between = columns @ self._columns.T  # R(yaw) @ C @ C.T, whose C.T C is the identity
        yaw = math.atan2(between[1, 0] - between[0, 1], between[0, 0] + between[1, 1])
        closure = 1.0 - min(max(state[9] / self._max_opening, 0.0), 1.0)
        return HandTarget(x=x, y=y, z=z, yaw=yaw, closure=float(closure))

    def action_of(self, target: HandTarget) -> np.ndarray:
        """(10,) float32."""
        cos, sin = math.cos(target.yaw), math.sin(target.yaw)
        columns = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ self._columns
        opening = (1.0 - target.closure) * self._max_opening
        return np.array([*target.position, *columns.T.ravel(), opening], np.float32)


def stride_towards(
    now: HandTarget, aim: HandTarget, *, stride: float, turn_rad: float
) -> HandTarget:
    """From `now` towards `aim`, at most `stride` of the way and `turn_rad`; the gripper at once."""
    way = aim.position - now.position
    share = min(1.0, stride / max(float(np.linalg.norm(way)), 1e-9))
    x, y, z = (now.position + share * way).tolist()
    turn = min(max(aim.yaw - now.yaw, -turn_rad), turn_rad)
    return replace(aim, x=x, y=y, z=z, yaw=now.yaw + turn)


def _check_vector(schema: Schema, name: str, *, size: int, exactly: bool) -> None:
    feature = schema[name]
    fits = len(feature.shape) == 1 and (
        feature.shape[0] == size if exactly else feature.shape[0] >= size
    )
    if not fits:
        raise ValueError(
            f"feature {name!r} has shape {feature.shape}, expected ({size},)"
            f"{'' if exactly else ' or longer'}; choose a mapping that fits this environment"
        )
