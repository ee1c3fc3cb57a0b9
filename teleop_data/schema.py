"""The schema: which named arrays an episode holds, in which unit, at which rate.

Pure values with JSON in and out; imports numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

Role = Literal["camera", "state", "action", "other"]

# Plain numbers only: what zarr, the wire and JSON statistics all can hold.
DTYPES = (
    *("float16", "float32", "float64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One named array of the schema, as it is at a single control step.

    Attributes:
        name: key of the array in observations, replay buffers and on the wire.
        shape: shape at one step; cameras are (H, W, C).
        dtype: numpy dtype name; cameras are uint8.
        role: camera, state (proprioception), action, or other (recorded, not observed).
        unit: physical unit, one word for the whole array, "" where there is none.
        angles: indices of entries that are angles in rad and wrap at 2 pi. The policy feeds their
            sine and cosine.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    role: Role = "state"
    unit: str = ""
    angles: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"feature name {self.name!r}: must not be empty or hold a '/'")
        if self.dtype not in DTYPES:
            raise ValueError(
                f"feature {self.name!r}: dtype {self.dtype!r}; one of {', '.join(DTYPES)}"
            )
        if any(type(length) is not int or length < 1 for length in self.shape):
            raise ValueError(f"feature {self.name!r}: shape {self.shape} needs positive integers")
        if self.role not in get_args(Role):
            raise ValueError(f"feature {self.name!r}: role {self.role!r}; one of {get_args(Role)}")
        if self.role == "camera" and (len(self.shape) != 3 or self.dtype != "uint8"):
            raise ValueError(
                f"camera {self.name!r} must be (H, W, C) uint8, got {self.shape} {self.dtype}"
            )
        size = int(np.prod(self.shape))
        if any(not 0 <= i < size for i in self.angles):
            raise ValueError(f"feature {self.name!r}: angles {self.angles} outside 0..{size - 1}")

    def check(self, value: np.ndarray) -> None:
        """Raise ValueError unless `value` is one step of this feature: shape, dtype, finite."""
        value = np.asarray(value)
        if value.shape != self.shape or value.dtype != np.dtype(self.dtype):
            raise ValueError(
                f"feature {self.name!r}: got shape {value.shape} {value.dtype}, "
                f"expected {self.shape} {self.dtype}"
            )
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError(f"feature {self.name!r}: not finite: {value}")


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The features of an episode and the rate of its control steps.

    Attributes:
        features: every array, in a fixed order.
        rate_hz: control steps per second.
    """

    features: tuple[Feature, ...]
    rate_hz: float

    def __post_init__(self) -> None:
        names = self.names
        if len(set(names)) != len(names):
            raise ValueError(f"feature names must differ, got {names}")
        if not 0 < self.rate_hz < float("inf"):
            raise ValueError(f"rate_hz must be positive and finite, got {self.rate_hz}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all features, in order."""
        return tuple(feature.name for feature in self.features)

    def __getitem__(self, name: str) -> Feature:
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(f"no feature {name!r}; have: {', '.join(self.names)}")

    def with_role(self, *roles: Role) -> tuple[Feature, ...]:
        """Features whose role is one of `roles`, in schema order."""
        return tuple(feature for feature in self.features if feature.role in roles)

    @property
    def observed(self) -> tuple[Feature, ...]:
        """What a policy may see: cameras and state."""
        return self.with_role("camera", "state")

    @property
    def action(self) -> Feature:
        """The single action feature; ValueError if there is not exactly one."""
        actions = self.with_role("action")
        if len(actions) != 1:
            raise ValueError(f"expected one action feature, have {[a.name for a in actions]}")
        return actions[0]

    def select(self, names: Iterable[str]) -> Schema:
        """The schema with only `names`, in that order; KeyError for an unknown one."""
        return replace(self, features=tuple(self[name] for name in names))

    def with_angles(self, angles: Mapping[str, Iterable[int]]) -> Schema:
        """The schema with `angles` set for the named features (for stores that do not say)."""
        for name in angles:
            self[name]
        return replace(
            self,
            features=tuple(
                replace(f, angles=tuple(angles[f.name])) if f.name in angles else f
                for f in self.features
            ),
        )

    def check_observation(self, observation: Mapping[str, np.ndarray]) -> None:
        """Raise unless `observation` holds exactly the observed features, each valid.

        Raises:
            KeyError: a feature is missing or unknown.
            ValueError: a shape or dtype differs, or a float is not finite.
        """
        expected = {feature.name for feature in self.observed}
        unknown, missing = set(observation) - expected, expected - set(observation)
        if unknown or missing:
            raise KeyError(
                f"observation has unknown {sorted(unknown)} and lacks {sorted(missing)}; "
                f"expected {sorted(expected)}"
            )
        for name, value in observation.items():
            self[name].check(value)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_json` is its inverse."""
        features = [
            {**asdict(f), "shape": list(f.shape), "angles": list(f.angles)} for f in self.features
        ]
        return {"rate_hz": self.rate_hz, "features": features}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Schema:
        """The schema that `to_json` wrote. ValueError if a key is unknown or missing."""
        try:
            if unknown := set(data) - {"rate_hz", "features"}:
                raise ValueError(f"schema has unknown keys {sorted(unknown)}")
            features = tuple(
                Feature(**{**f, "shape": tuple(f["shape"]), "angles": tuple(f.get("angles", ()))})
                for f in data["features"]
            )
            return cls(features=features, rate_hz=float(data["rate_hz"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a schema ({error}): {data}") from error


def first_difference(ours: Schema, theirs: Schema) -> str | None:
    """What differs between two schemas, as one sentence, or None if nothing does."""
    if ours.rate_hz != theirs.rate_hz:
        return f"rate: {ours.rate_hz} Hz against {theirs.rate_hz} Hz"
    if set(ours.names) != set(theirs.names):
        return f"features: {sorted(ours.names)} against {sorted(theirs.names)}"
    for feature in ours.features:
        if feature != theirs[feature.name]:
            return f"{feature.name}: {feature} against {theirs[feature.name]}"
    return None
