"""Live rollouts: camera, policy server and robot as processes of their own, over loopback sockets.

    robot (forcing-run) --raw pictures--> camera (forcing-stream) --pictures--> policy server
           ^-----------------------------plans------------------------------ (forcing-serve)

The camera's process may cover its lens for a while. The robot is simulated and publishes what its
camera would see; everything else is as it would be with a real one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.children import Child, free_endpoint

START_S = (
    180.0  # for a process to say that it is ready; importing torch takes long on a busy machine
)


@dataclass(frozen=True, kw_only=True)
class LiveRun:
    """Some live episodes under one condition.

    Attributes:
        name: for files and reports.
        seeds: of the episodes.
        flag: "auto" or "none", see `forcing-run`.
        cover: "black" or "frozen" covers the camera in every episode, "none" never.
        cover_start_s, cover_length_s: when, after the episode's first picture.
    """

    name: str
    seeds: Sequence[int]
    flag: str = "auto"
    cover: str = "none"
    cover_start_s: float = 1.0
    cover_length_s: float = 1.0


class LiveSetup:
    """A policy server that runs, and a place where a camera may; plays episodes against them."""

    def __init__(self, server: Child, *, camera: str, endpoint: str, task: str, folder: Path):
        """`endpoint` is where the server expects the pictures of `camera`."""
        self._server, self._camera, self._endpoint = server, camera, endpoint
        self._task, self._folder = task, folder
        self._server_endpoint = server.wait_for(" at tcp://", timeout_s=START_S).rsplit(" ", 1)[1]

    def play(self, run: LiveRun) -> list[Path]:
        """Run its episodes; returns the results files, one an episode if the camera is covered.

        A camera's cover is timed from its first picture, so each of those has a camera of its own.
        """
        if run.cover == "none":
            return [self._play(run, first_seed=run.seeds[0], num_episodes=len(run.seeds))]
        return [self._play(run, first_seed=seed, num_episodes=1) for seed in run.seeds]

    def _play(self, run: LiveRun, *, first_seed: int, num_episodes: int) -> Path:
        raw = free_endpoint()
        output = self._folder / f"{run.name}_{first_seed}.json"
        with (
            Child(
                "deploy.stream_cameras",
                f"camera={self._camera}",
                "source=relay",
                f"source.endpoint={raw}",
                f"endpoint={self._endpoint}",
                f"cover={run.cover}",
                f"cover_start_s={run.cover_start_s}",
                f"cover_length_s={run.cover_length_s}",
                log=self._folder / "logs" / f"camera_{run.name}_{first_seed}.log",
            ) as camera,
            Child(
                "deploy.run_robot",
                f"task={self._task}",
                f"server={self._server_endpoint}",
                f"publish={{{self._camera}:{raw}}}",
                f"first_seed={first_seed}",
                f"num_episodes={num_episodes}",
                f"flag={run.flag}",
                f"output={output}",
            ) as robot,
        ):
            robot.wait(besides=(camera, self._server))
        return output


@contextmanager
def live_setup(
    *, checkpoint: Path, inference: str, camera: str, task: str, folder: Path
) -> Iterator[LiveSetup]:
    """A policy server for `checkpoint`, ended at the exit; logs and results go to `folder`.

    `inference` is the planning mode, "chunk" or "rolling".

    Raises:
        ChildError: at any time, if a process fails or ends before its time.
    """
    endpoint = free_endpoint()
    with Child(
        "deploy.serve",
        f"checkpoint={checkpoint}",
        f"inference={inference}",
        "endpoint=tcp://127.0.0.1:*",
        f"cameras={{{camera}:{endpoint}}}",
        log=folder / "logs" / "server.log",
    ) as server:
        yield LiveSetup(server, camera=camera, endpoint=endpoint, task=task, folder=folder)
