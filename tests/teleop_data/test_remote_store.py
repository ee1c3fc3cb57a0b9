"""The same store behind the S3 protocol, from a server on this machine."""

from __future__ import annotations

import os
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from teleop_data.dataset import WindowDataset
from teleop_data.remote_store import RemoteError, make_room, open_remote
from teleop_data.replay_buffer import ReplayBuffer, StoreError
from tests.teleop_data.stores import SCHEMA, write_store, write_v2_store

pytest.importorskip("obstore")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the server's and boto's modules
OPTIONS = {
    "access_key_id": "nobody",
    "secret_access_key": "nothing",
    "region": "us-east-1",
    "virtual_hosted_style_request": False,
}


class Server:
    """An S3 server in this process, with one bucket."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.endpoint = f"http://{host}:{port}"
        # what it holds is this process's, not the server's
        urllib.request.urlopen(f"{self.endpoint}/moto-api/reset", data=b"", timeout=10).close()
        import boto3

        self._client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="nobody",
            aws_secret_access_key="nothing",
        )
        self._client.create_bucket(Bucket="lab")

    def upload(self, folder: Path, name: str) -> str:
        for file in folder.rglob("*"):
            if file.is_file():
                key = f"{name}/{file.relative_to(folder).as_posix()}"
                self._client.put_object(Bucket="lab", Key=key, Body=file.read_bytes())
        return f"s3://lab/{name}"

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


def opened(server: Server, url: str, cache: Path, **options: object) -> ReplayBuffer:
    return open_remote(
        url, cache_dir=cache, endpoint=server.endpoint, timeout_s=5.0, **OPTIONS, **options
    )  # type: ignore[arg-type]


def test_the_same_episodes_as_on_disk(server: Server, tmp_path: Path) -> None:
    local = write_store(tmp_path / "a.zarr")
    url = server.upload(local.path, "a.zarr")
    remote = opened(server, url, tmp_path / "cache")
    assert remote.schema == SCHEMA
    assert remote.episode_attributes == local.episode_attributes
    for index in range(local.num_episodes):
        for name, values in local.episode(index).items():
            np.testing.assert_array_equal(remote.episode(index)[name], values, strict=True)
    windows = [
        WindowDataset(
            buffer,
            schema=SCHEMA.select(["front", "state", "action"]),
            episodes=np.arange(4),
            context=3,
            horizon=2,
            camera_cache_bytes=0,
        ).batch(np.arange(25))
        for buffer in (local, remote)
    ]
    for name, values in windows[0].items():
        np.testing.assert_array_equal(windows[1][name], values)
    with pytest.raises(StoreError, match="open for reading"):
        remote.append_episode(local.episode(0))


def test_what_is_cached_is_not_fetched_again_unless_it_changed(
    server: Server, tmp_path: Path
) -> None:
    buffer = write_store(tmp_path / "a.zarr", lengths=(5,))
    url = server.upload(buffer.path, "a.zarr")
    cache = tmp_path / "cache"
    opened(server, url, cache)["front"][:]
    (shard,) = [f for f in cache.iterdir() if f.stat().st_size > 500]
    written = shard.stat().st_ino
    before = opened(server, url, cache)["front"][:]
    assert shard.stat().st_ino == written
    buffer.append_episode(buffer.episode(0))
    server.upload(buffer.path, "a.zarr")
    after = opened(server, url, cache)["front"][:]
    np.testing.assert_array_equal(after, np.concatenate([before, before]))


def test_the_cache_stays_within_its_budget(server: Server, tmp_path: Path) -> None:
    """Three shards of about 74 kB through a cache of 160 kB, and one too large to be kept."""
    lengths = (512, 512, 512)
    local = write_store(tmp_path / "a.zarr", lengths=lengths)
    url = server.upload(local.path, "a.zarr")
    cache = tmp_path / "cache"
    frames = opened(server, url, cache, cache_bytes=160_000)["front"]
    for row in (0, 600, 1200, 0, 1200, 600):
        np.testing.assert_array_equal(frames[row], local["front"][row])
        assert 0 < sum(f.stat().st_size for f in cache.iterdir()) <= 160_000
    small = tmp_path / "small"
    frames = opened(server, url, small, cache_bytes=1000)["front"]
    np.testing.assert_array_equal(frames[700:720], local["front"][700:720])
    assert sum(f.stat().st_size for f in small.iterdir()) <= 1000


def test_least_recently_used_goes_first(tmp_path: Path) -> None:
    for number, name in enumerate(("old", "used", "new", "x.partial")):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (number, number))
    os.utime(tmp_path / "used", (9, 9))
    make_room(tmp_path, 30)
    assert {f.name for f in tmp_path.iterdir()} == {"used", "new", "x.partial"}
    make_room(tmp_path, 0)
    assert {f.name for f in tmp_path.iterdir()} == {"x.partial"}


def test_readers_at_the_same_time(server: Server, tmp_path: Path) -> None:
    """Four readers of one cache that is too small for what they read."""
    local = write_store(tmp_path / "a.zarr", lengths=(512, 512))
    url = server.upload(local.path, "a.zarr")
    expected = local["front"][:]
    wrong: list[object] = []

    def read(seed: int) -> None:
        frames = opened(server, url, tmp_path / "cache", cache_bytes=100_000)["front"]
        for row in np.random.default_rng(seed).integers(0, 1008, 12):
            if not np.array_equal(frames[row : row + 16], expected[row : row + 16]):
                wrong.append((seed, row))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong


def test_a_network_that_is_gone_is_told(server: Server, tmp_path: Path) -> None:
    url = server.upload(write_store(tmp_path / "a.zarr").path, "a.zarr")
    buffer = opened(server, url, tmp_path / "cache")
    frames = buffer["front"]
    server.stop()
    with pytest.raises(RemoteError, match=r"s3://lab/a.zarr/.* cannot be read .* network"):
        frames[:]
    with pytest.raises(RemoteError, match="s3://lab/a.zarr"):
        opened(server, url, tmp_path / "cache")


def test_nothing_there(server: Server, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no replay buffer at s3://lab/none"):
        opened(server, "s3://lab/none.zarr", tmp_path / "cache")


def test_a_file_that_was_not_uploaded_is_told(server: Server, tmp_path: Path) -> None:
    local = write_store(tmp_path / "a.zarr")
    (local.path / "data/front/c/0/0/0/0").unlink()
    url = server.upload(local.path, "a.zarr")
    with pytest.raises(StoreError, match="files are missing: data/front/c/0/0/0/0"):
        opened(server, url, tmp_path / "cache")


def test_a_store_of_others(server: Server, tmp_path: Path) -> None:
    arrays = write_v2_store(tmp_path / "b.zarr")
    url = server.upload(tmp_path / "b.zarr", "b.zarr")
    remote = opened(server, url, tmp_path / "cache")
    np.testing.assert_array_equal(remote["img"][3:9], arrays["img"][3:9].astype(np.uint8))
