"""Replay buffers in zarr: ours, Diffusion Policy's and UMI's read, ours and theirs written.

    replay_buffer      zarr v3 with shards, a directory
    diffusion_policy   zarr v2, Blosc or JPEG-XL images, a directory or a zip; what their code opens

Their layout has no place for rate, units, roles and attributes; written by us, it carries them as
attributes of the root group, which their code passes over and ours reads back.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numcodecs
import numpy as np
import zarr
import zarr.storage

from teleop_data.converters.episode_stream import Format
from teleop_data.converters.row_writer import RowWriter
from teleop_data.replay_buffer import PROVENANCE_KEY, SCHEMA_KEY, ReplayBuffer
from teleop_data.schema import Feature, Schema

CHUNK_BYTES = 2_000_000  # as Diffusion Policy's own code chooses them
JPEGXL_ID = "imagecodecs_jpegxl"
# What the JPEG-XL codec in UMI's code knows; it refuses a store that says more.
JPEGXL_KEYS = (
    *("level", "effort", "distance", "lossless", "decodingspeed", "photometric", "planar"),
    *("usecontainer", "index", "keeporientation", "numthreads"),
)


class ReplayBufferSource:
    """The episodes of a replay buffer: ours, Diffusion Policy's or UMI's."""

    def __init__(self, path: str | Path) -> None:
        """The store at `path`, a directory or a zip.

        Raises:
            FileNotFoundError: nothing there.
            StoreError: no replay buffer, or a camera's floats are no integers 0..255.
        """
        self._buffer = ReplayBuffer.open(path)
        self._attributes = self._buffer.episode_attributes
        self._root = _open_root(Path(path))
        self.is_ours = SCHEMA_KEY in self._root.attrs
        for camera in self.schema.with_role("camera"):
            if self._buffer.num_steps:
                self._buffer[camera.name][0]  # refused here, not after an hour of conversion

    @property
    def schema(self) -> Schema:
        """The features, as the store says or as guessed."""
        return self._buffer.schema

    @property
    def num_episodes(self) -> int:
        """Finished episodes."""
        return self._buffer.num_episodes

    @property
    def provenance(self) -> Mapping[str, Any]:
        """As the store says; of others' stores, where they were read."""
        said = self._buffer.provenance
        return said or {"format": "replay buffer (zarr)", "store": self._buffer.path.name}

    @property
    def notes(self) -> Sequence[str]:
        """What was guessed, one sentence each; empty for a store of ours."""
        if self.is_ours:
            return ()
        roles = ", ".join(f"{f.name} {f.role}" for f in self.schema.features)
        notes = [
            f"The store says no roles; guessed from names and shapes: {roles}.",
            f"The store says no rate; {self.schema.rate_hz:g} Hz is assumed.",
        ]
        for feature in self.schema.features:
            stored = self._root[f"data/{feature.name}"]
            if isinstance(stored, zarr.Array) and stored.dtype != np.dtype(feature.dtype):
                notes.append(
                    f"Camera {feature.name!r} is stored as {stored.dtype}; it is cast to uint8, "
                    "and refused where it does not hold integers 0..255."
                )
            if missing := self._buffer.missing_files(feature.name):
                notes.append(
                    f"{len(missing)} files of {feature.name!r} are not there and read as zeros, "
                    f"first {missing[0]}."
                )
        return notes

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """All features of one episode."""
        return self._buffer.episode(index)

    def attributes(self, index: int) -> Mapping[str, Any]:
        """Facts about one episode."""
        return self._attributes[index]

    def close(self) -> None:
        """Close a zip."""
        self._root.store.close()


class ReplayBufferSink:
    """A replay buffer of ours."""

    def __init__(self) -> None:
        self._writer: RowWriter | None = None

    def losses(self, schema: Schema) -> Sequence[str]:
        """Nothing is lost."""
        return ()

    def begin(self, path: Path, *, schema: Schema, provenance: Mapping[str, Any]) -> None:
        """Create the store; ValueError for a zip, which cannot be appended to."""
        if path.suffix == ".zip":
            raise ValueError(f"{path.name}: our stores are directories; name it without .zip")
        ReplayBuffer.create(path, schema, provenance=provenance)
        self._writer = RowWriter(zarr.open_group(store=path, mode="r+"), schema=schema)

    def add(self, episode: Mapping[str, np.ndarray], *, attributes: Mapping[str, Any]) -> None:
        """Take one episode. ValueError if a float is not finite."""
        assert self._writer is not None
        self._writer.add(episode, attributes=attributes)

    def finish(self) -> None:
        """Write what still waits."""
        assert self._writer is not None
        self._writer.finish()

    def close(self) -> None:
        """Nothing is open between two writes."""


class DiffusionPolicySink:
    """A zarr v2 store that the code of Diffusion Policy and UMI opens; a zip if so named."""

    def __init__(
        self, *, images: Literal["blosc", "jpegxl"] = "blosc", jpegxl_level: int | None = None
    ) -> None:
        """How to write.

        Args:
            images: "blosc" (any of their versions reads it) or "jpegxl" (UMI's code reads it).
            jpegxl_level: 0 (smallest) to 100; None is lossless. UMI's own stores have 99.

        Raises:
            ValueError: another codec, or a level without jpegxl or outside 0..100.
        """
        if images not in ("blosc", "jpegxl"):
            raise ValueError(f"images {images!r}; expected blosc or jpegxl")
        if jpegxl_level is not None and (images != "jpegxl" or not 0 <= jpegxl_level <= 100):
            raise ValueError(
                f"jpegxl_level {jpegxl_level}: expected 0..100, and images=jpegxl beside it"
            )
        self._images, self._level = images, jpegxl_level
        self._target, self._directory = Path(), Path()
        self._writer: RowWriter | None = None

    def losses(self, schema: Schema) -> Sequence[str]:
        """What their code will not see, and what a lossy codec changes."""
        losses = [
            "Rate, roles, units, provenance and the episodes' attributes: Diffusion Policy's "
            "and UMI's code does not read them; they are kept in the root group's attributes and "
            "read back by this program."
        ]
        if self._level is not None and (cameras := schema.with_role("camera")):
            names = ", ".join(camera.name for camera in cameras)
            losses.append(f"Images ({names}): JPEG-XL at level {self._level} is not exact.")
        return losses

    def begin(self, path: Path, *, schema: Schema, provenance: Mapping[str, Any]) -> None:
        """Create the store, a directory at first."""
        self._target = self._directory = path
        if path.suffix == ".zip":  # a zip cannot be changed: it is packed at the end
            self._directory = path.with_name(path.name + ".unpacked")
        root = zarr.open_group(store=self._directory, mode="w-", zarr_format=2)
        data, meta = root.create_group("data"), root.create_group("meta")
        for feature in schema.features:
            _create_v2(data, feature, compressor=self._compressor(feature))
        _create_v2(meta, Feature(name="episode_ends", shape=(), dtype="int64"), compressor=_blosc())
        root.attrs.update({PROVENANCE_KEY: dict(provenance), SCHEMA_KEY: schema.to_json()})
        self._writer = RowWriter(root, schema=schema)

    def add(self, episode: Mapping[str, np.ndarray], *, attributes: Mapping[str, Any]) -> None:
        """Take one episode. ValueError if a float is not finite."""
        assert self._writer is not None
        self._writer.add(episode, attributes=attributes)

    def finish(self) -> None:
        """Make it readable by UMI's code; pack the store if it is to be a zip."""
        assert self._writer is not None
        self._writer.finish()
        _trim_codecs(self._directory)
        if self._directory != self._target:
            _zip_directory(self._directory, self._target)

    def close(self) -> None:
        """Nothing is open between two writes."""

    def _compressor(self, feature: Feature) -> Any:
        if feature.role == "camera" and self._images == "jpegxl":
            return _jpegxl(self._level)
        return _blosc()


def recognize(path: Path) -> str | None:
    """The sign that `path` is a replay buffer, or None; raises nothing."""
    markers = (".zgroup", "zarr.json")
    if path.is_dir() and any((path / marker).is_file() for marker in markers):
        if (path / "data").is_dir() and (path / "meta" / "episode_ends").is_dir():
            return "a zarr directory with data and meta/episode_ends"
        return None
    if path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.startswith("meta/episode_ends/") for name in names):
            return "a zip that holds a zarr with meta/episode_ends"
    return None


REPLAY_BUFFER = Format(
    name="replay_buffer",
    title="replay buffer (zarr: ours, Diffusion Policy's, UMI's)",
    recognize=recognize,
    open=ReplayBufferSource,
    sink=ReplayBufferSink,
    suffixes=(".zarr",),
)
# Reading it is reading any replay buffer; only as a target is it a format of its own.
DIFFUSION_POLICY = Format(
    name="diffusion_policy",
    title="Diffusion Policy's and UMI's zarr v2",
    recognize=lambda path: None,
    open=ReplayBufferSource,
    sink=DiffusionPolicySink,
    suffixes=(".zarr.zip", ".zip"),
)


def _open_root(path: Path) -> zarr.Group:
    store = zarr.storage.ZipStore(path, mode="r") if path.is_file() else path
    return zarr.open_group(store=store, mode="r")


def _create_v2(group: zarr.Group, feature: Feature, *, compressor: Any) -> None:
    """An empty array; one image a chunk for JPEG-XL, else about `CHUNK_BYTES`."""
    step_bytes = int(np.prod(feature.shape)) * np.dtype(feature.dtype).itemsize
    is_blosc = isinstance(compressor, numcodecs.Blosc)
    group.create_array(
        feature.name,
        shape=(0, *feature.shape),
        chunks=(max(1, CHUNK_BYTES // step_bytes) if is_blosc else 1, *feature.shape),
        dtype=feature.dtype,
        compressors=compressor,
    )


def _blosc() -> Any:
    return numcodecs.Blosc(cname="zstd", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE)


def _jpegxl(level: int | None) -> Any:
    from imagecodecs.numcodecs import Jpegxl, register_codecs

    register_codecs(verbose=False)
    # one thread a frame: zarr encodes several frames at a time
    return Jpegxl(level=level, lossless=level is None, numthreads=1)


def _trim_codecs(directory: Path) -> None:
    """Leave out of every array's description what the JPEG-XL codec in UMI's code refuses."""
    for file in directory.glob("data/*/.zarray"):
        described = json.loads(file.read_text(encoding="utf-8"))
        codec = described["compressor"]
        if codec["id"] == JPEGXL_ID:
            described["compressor"] = {key: codec[key] for key in ("id", *JPEGXL_KEYS)}
            file.write_text(json.dumps(described, indent=4), encoding="utf-8")


def _zip_directory(directory: Path, target: Path) -> None:
    """Pack `directory` so that the zarr group is at the root of the zip, uncompressed."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(directory.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(directory).as_posix())
