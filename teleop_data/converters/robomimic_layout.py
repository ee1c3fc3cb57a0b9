"""Where robomimic's HDF5 keeps a feature, and which features a file of its own holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from teleop_data.schema import DTYPES, Feature, Role, Schema

if TYPE_CHECKING:
    import h5py

SCHEMA_KEY = "forcing_schema"
PROVENANCE_KEY = "forcing_provenance"
ATTRIBUTES_KEY = "forcing_attributes"
NEXT_OBS = "next_obs."
ASSUMED_RATE_HZ = 20.0  # robosuite's, whose data most of these files are
# robomimic insists on env_args; with these it trains, and cannot make an environment.
UNKNOWN_ENVIRONMENT = {"env_name": "unknown", "type": 2, "env_kwargs": {}}


def place_of(feature: Feature) -> str:
    """Path of a feature that is no action within its episode's group.

    Raises:
        ValueError: robomimic gives the name another meaning.
    """
    if feature.role in ("camera", "state"):
        return f"obs/{feature.name}"
    if feature.name.startswith(NEXT_OBS):
        return f"next_obs/{feature.name.removeprefix(NEXT_OBS)}"
    if feature.name in ("obs", "next_obs", "actions"):
        raise ValueError(
            f"feature {feature.name!r} has role {feature.role!r}, and robomimic keeps something "
            "else under that name; rename it with names"
        )
    return feature.name


def split_actions(actions: np.ndarray, *, schema: Schema) -> dict[str, np.ndarray]:
    """The action features that lie side by side in `actions` (T, A): {name: (T, *shape)}.

    Raises:
        ValueError: `actions` has another width than the features together.
    """
    features = schema.with_role("action")
    sizes = [math.prod(feature.shape) for feature in features]
    actions = actions.reshape(len(actions), -1)
    if actions.shape[1] != sum(sizes):
        raise ValueError(f"actions are {actions.shape}, expected (T, {sum(sizes)})")
    parts = np.split(actions, np.cumsum(sizes)[:-1], axis=1)
    return {
        feature.name: np.ascontiguousarray(part).reshape(len(part), *feature.shape)
        for feature, part in zip(features, parts, strict=True)
    }


def guess_schema(demo: h5py.Group, *, next_obs: bool) -> tuple[Schema, list[str]]:
    """Schema of a file that carries none, from one of its episodes, and what was guessed.

    uint8 (H, W, 1 or 3) is a camera, every other observation is state; `actions` becomes `action`;
    the rest (states, rewards, dones) is "other".
    """
    datasets, features, left_out = _datasets(demo), [], []
    for path, dataset in datasets.items():
        group, _, name = path.rpartition("/")
        shape, dtype = tuple(dataset.shape[1:]), dataset.dtype.name
        if group not in ("", "obs", "next_obs") or dtype not in DTYPES:
            left_out.append(path)
            continue
        role: Role = "other"
        if path == "actions":
            name, role = "action", "action"
        elif group == "obs":
            is_camera = len(shape) == 3 and shape[-1] in (1, 3) and dtype == "uint8"
            role = "camera" if is_camera else "state"
        elif group == "next_obs":
            name = NEXT_OBS + name
        if group != "next_obs" or next_obs:
            features.append(Feature(name=name, shape=shape, dtype=dtype, role=role))
    notes = [
        f"The file says no rate; {ASSUMED_RATE_HZ:g} Hz is assumed, as robosuite's is.",
        "All observations that are no cameras are taken for state.",
    ]
    if left_out:
        notes.append(f"Left out, no feature of one control step: {', '.join(left_out)}.")
    if any(path.startswith("next_obs/") for path in datasets) and not next_obs:
        notes.append(
            "next_obs is left out: it repeats obs one step later, and its last entry, the "
            "observation after the last action, is lost; source_options={next_obs: true} keeps it."
        )
    return Schema(features=tuple(features), rate_hz=ASSUMED_RATE_HZ), notes


def _datasets(demo: h5py.Group) -> dict[str, h5py.Dataset]:
    """All arrays below `demo` by their path."""
    found: dict[str, h5py.Dataset] = {}

    def visit(path: str, item: h5py.Group | h5py.Dataset) -> None:
        if hasattr(item, "dtype"):
            found[path] = item  # pyright: ignore[reportArgumentType]

    demo.visititems(visit)
    return found
