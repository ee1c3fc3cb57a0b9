"""Episodes in memory and ways of comparing what two sources give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from teleop_data.converters.episode_stream import EpisodeSource
from teleop_data.schema import DTYPES, Feature, Role, Schema

DATA = Path(__file__).parents[3] / ".." / "shared" / "data"


def real_data(name: str) -> Path:
    """Real demonstrations at `name`; skips the test where they are not at hand."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the human demonstrations {name} are not beside this checkout")
    return path.resolve()


class MemorySource:
    """Episodes made from a seed, in memory."""

    def __init__(
        self,
        schema: Schema,
        *,
        lengths: Sequence[int],
        attributes: Sequence[Mapping[str, Any]] = (),
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.schema, self.notes = schema, ()
        self.provenance = provenance if provenance is not None else {"operator": "nobody"}
        self.episodes = [_draw(schema, length, seed=seed) for seed, length in enumerate(lengths)]
        self._attributes = [*attributes, *({} for _ in lengths[len(attributes) :])]
        self.num_closed = 0

    @property
    def num_episodes(self) -> int:
        return len(self.episodes)

    def episode(self, index: int) -> dict[str, np.ndarray]:
        return self.episodes[index]

    def attributes(self, index: int) -> Mapping[str, Any]:
        return self._attributes[index]

    def close(self) -> None:
        self.num_closed += 1


def _draw(schema: Schema, length: int, *, seed: int) -> dict[str, np.ndarray]:
    """Bits of every pattern that the dtype has and that is finite."""
    rng = np.random.default_rng(seed)
    episode = {}
    for feature in schema.features:
        dtype, shape = np.dtype(feature.dtype), (length, *feature.shape)
        if dtype.kind == "b":
            values = rng.integers(0, 2, shape).astype(dtype)
        elif dtype.kind == "f":
            values = (rng.normal(size=shape) * 10.0 ** rng.integers(-4, 4)).astype(dtype)
        else:
            info = np.iinfo(dtype)
            values = rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
        episode[feature.name] = values
    return episode


def assert_same(ours: EpisodeSource, theirs: EpisodeSource) -> None:
    """Schema, ends, attributes, provenance and every bit of every feature are equal."""
    assert ours.schema == theirs.schema
    assert ours.num_episodes == theirs.num_episodes
    assert ours.provenance == theirs.provenance
    for index in range(ours.num_episodes):
        assert dict(ours.attributes(index)) == dict(theirs.attributes(index))
        assert_same_arrays(ours.episode(index), theirs.episode(index))


def assert_same_arrays(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> None:
    assert set(ours) == set(theirs)
    for name, values in theirs.items():
        assert ours[name].dtype == values.dtype, name
        assert ours[name].shape == values.shape, name
        assert ours[name].tobytes() == values.tobytes(), name


@st.composite
def sources(draw: st.DrawFn) -> MemorySource:
    """A few short episodes of a small schema with at least one action, all of one dtype."""
    numbers = st.lists(st.integers(1, 3), max_size=2).map(tuple)
    action_dtype = draw(st.sampled_from(DTYPES))
    features = [
        Feature(name=f"action_{i}", shape=draw(numbers), dtype=action_dtype, role="action")
        for i in range(draw(st.integers(1, 2)))
    ]
    for i in range(draw(st.integers(0, 3))):
        role = draw(st.sampled_from(["camera", "state", "other"]))
        features.append(_feature(f"{role}.{i}", role, draw(st.sampled_from(DTYPES)), draw(numbers)))
    schema = Schema(features=tuple(features), rate_hz=draw(st.sampled_from([7.5, 10.0, 30.0])))
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    facts = st.fixed_dictionaries({}, optional={"success": st.booleans(), "task": st.text()})
    attributes = [draw(facts) for _ in lengths]
    return MemorySource(schema, lengths=lengths, attributes=attributes)


def _feature(name: str, role: Role, dtype: str, shape: tuple[int, ...]) -> Feature:
    if role == "camera":
        return Feature(name=name, shape=(4, 5, 3), dtype="uint8", role="camera")
    return Feature(name=name, shape=shape, dtype=dtype, role=role, unit="m")
