"""Replay buffers behind the S3 protocol, read through a local cache of bounded size.

    open_remote("s3://lab/pick_place.zarr", cache_dir="~/.cache/forcing")

    reader --key, range--> cache folder --whole object, once--> object store

Whole objects (shards) are kept, since a training run comes back to each; the least recently used
ones go first. Every file's name holds the object's version (ETag), so that an object that has
changed is fetched again. Several processes may share one folder.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import zarr
import zarr.storage
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype

from teleop_data.replay_buffer import SCHEMA_KEY, ReplayBuffer, StoreError, infer_schema
from teleop_data.schema import Schema

IS_CHUNK = "/c/"  # in the keys of zarr v3's chunks and shards; metadata is always asked for anew


class RemoteError(StoreError):
    """An object store that does not answer, or refuses."""


def open_remote(
    url: str,
    *,
    cache_dir: str | Path,
    cache_bytes: int = 20 << 30,
    timeout_s: float = 10.0,
    **options: Any,
) -> ReplayBuffer:
    """The replay buffer at `url`, for reading.

    Args:
        url: "s3://bucket/path.zarr"; obstore's other protocols (gs://, az://, https://) work too.
        cache_dir: folder for what was fetched; made if it is not there.
        cache_bytes: at most so much is kept in it, larger objects are read in ranges.
        timeout_s: how long to wait for an answer, retries included.
        options: as obstore takes them (endpoint, region, access_key_id, ...); what is not given
            comes from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT, ...).

    Raises:
        RemoteError: the server does not answer or refuses.
        StoreError: what is there is not a replay buffer.
    """
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    cache = Path(cache_dir).expanduser()
    cache.mkdir(parents=True, exist_ok=True)
    timeout = timedelta(seconds=timeout_s)
    try:
        remote = from_url(
            url,
            client_options={"timeout": timeout, "connect_timeout": timeout, "allow_http": True},
            retry_config={"max_retries": 2, "retry_timeout": timeout},
            **options,
        )
        objects = zarr.storage.ObjectStore(remote, read_only=True)
        store = CachedStore(objects, url=url, folder=cache, max_bytes=cache_bytes)
        root = zarr.open_group(store=store, mode="r")
        attributes = dict(root.attrs)
        if SCHEMA_KEY in attributes:
            schema = Schema.from_json(cast(dict, attributes[SCHEMA_KEY]))
        else:
            schema = infer_schema(cast(zarr.Group, root["data"]))
        return ReplayBuffer(root, schema=schema, path=Path(url))
    except BaseError as error:
        raise _remote_error(url, error) from error
    except (FileNotFoundError, KeyError) as error:
        raise StoreError(f"no replay buffer at {url} ({error})") from error


def _remote_error(where: str, error: Exception) -> RemoteError:
    first = str(error).strip().splitlines()[0]
    return RemoteError(
        f"{where} cannot be read ({type(error).__name__}: {first}); is the network there, are "
        "endpoint and credentials right? What is in the cache stays readable only while the "
        "server answers"
    )


class CachedStore(zarr.storage.WrapperStore[Store]):
    """Chunks of a read-only store, kept as files of a folder."""

    def __init__(self, store: Store, *, url: str, folder: Path, max_bytes: int) -> None:
        """`store`, whose root is `url`, with at most `max_bytes` kept in `folder`."""
        super().__init__(store)
        self._url, self._folder, self._max_bytes = url, folder, max_bytes
        self._files: dict[str, Path | None] = {}  # None: too large to be kept
        self._fetching: dict[str, asyncio.Lock] = {}

    def _with_store(self, store: Store) -> CachedStore:
        return CachedStore(store, url=self._url, folder=self._folder, max_bytes=self._max_bytes)

    @property
    def _supports_sync_io(self) -> bool:
        return False

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Bytes of an object, from the cache if it is a chunk; None if there is none.

        RemoteError if the server has to be asked and does not answer.
        """
        from obstore.exceptions import BaseError

        try:
            if IS_CHUNK not in f"/{key}":
                return await self._store.get(key, prototype, byte_range)
            async with self._fetching.setdefault(key, asyncio.Lock()):
                data = await self._cached(key, prototype, byte_range)
            if data is None:  # too large, or not there
                return await self._store.get(key, prototype, byte_range)
            return prototype.buffer.from_bytes(data)
        except BaseError as error:
            raise _remote_error(f"{self._url}/{key}", error) from error

    async def get_partial_values(self, prototype: Any, key_ranges: Any) -> list[Buffer | None]:
        """Several ranges at once, each as `get` gives it."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def get_ranges(
        self, key: str, byte_ranges: Sequence[ByteRequest | None], *, prototype: Any, **_: Any
    ) -> AsyncIterator[Sequence[tuple[int, Buffer | None]]]:
        """Ranges of one object, each as `get` gives it."""
        for index, byte_range in enumerate(byte_ranges):
            yield [(index, await self.get(key, prototype, byte_range))]

    async def _cached(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None
    ) -> bytes | None:
        """The range from the object's file, which is fetched first if it is not there."""
        if key not in self._files:
            self._files[key] = await self._file_of(key)
        path = self._files[key]
        if path is None:
            return None
        try:
            return await asyncio.to_thread(_read, path, byte_range)
        except FileNotFoundError:
            whole = await self._store.get(key, prototype)
            if whole is None:
                return None
            content = whole.to_bytes()
            await asyncio.to_thread(self._keep, path, content)
            return _part(content, byte_range)

    async def _file_of(self, key: str) -> Path | None:
        import obstore

        try:
            head = await obstore.head_async(cast(Any, self._store).store, key)
        except FileNotFoundError:
            return None
        if head["size"] > self._max_bytes:
            return None
        name = f"{self._url}\n{key}\n{head['e_tag']}\n{head['last_modified']}"
        return self._folder / hashlib.blake2b(name.encode(), digest_size=20).hexdigest()

    def _keep(self, path: Path, content: bytes) -> None:
        """Write `content` in one move, then remove the least recently used files beyond the
        budget."""
        make_room(self._folder, self._max_bytes - len(content))
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".partial", delete=False) as file:
            file.write(content)
        os.replace(file.name, path)
        make_room(self._folder, self._max_bytes)


def make_room(folder: Path, max_bytes: int) -> None:
    """Remove the least recently used files of `folder` until they take at most `max_bytes`.

    Files that another process is writing or has removed meanwhile are left alone.
    """
    found = []
    for path in folder.iterdir():
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= max_bytes:
            return
        if path.suffix != ".partial":
            path.unlink(missing_ok=True)
            total -= size


def _read(path: Path, byte_range: ByteRequest | None) -> bytes:
    with path.open("rb") as file:
        os.utime(path)  # used now
        size = os.fstat(file.fileno()).st_size
        first, end = _bounds(size, byte_range)
        file.seek(first)
        return file.read(end - first)


def _part(content: bytes, byte_range: ByteRequest | None) -> bytes:
    first, end = _bounds(len(content), byte_range)
    return content[first:end]


def _bounds(size: int, byte_range: ByteRequest | None) -> tuple[int, int]:
    """(first, end) of a range in `size` bytes."""
    match byte_range:
        case None:
            return 0, size
        case RangeByteRequest(start, end):
            return start, end
        case OffsetByteRequest(offset):
            return offset, size
        case SuffixByteRequest(suffix):
            return max(0, size - suffix), size
        case _:
            raise ValueError(f"unknown range {byte_range}")
