"""Real processes over real sockets: what happens when one of them dies, and the entry points."""

from __future__ import annotations

import json
import socket
import time

import numpy as np
import pytest

from deploy.control_loop import ControlLoop, LoopLimits
from deploy.controller import Controller
from deploy.episode import StepRecord
from deploy.frames import FramePublisher, FrameSubscriber
from deploy.policy_client import PolicyClient
from teleop_data.clock import MonotonicClock
from teleop_data.environment import Observation
from tests.deploy.planar_environment import PlanarEnvironment
from tests.deploy.processes import TINY, EntryPoint, entry_point
from tests.deploy.test_frames import ANY_PORT, picture, wait_for
from tests.deploy.test_policy_server import serving
from tests.deploy.tiny_policy import TinyPolicy


def free_endpoint() -> str:
    """A loopback endpoint that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


class EnoughSeen(Exception):
    """The test has what it needs."""


def test_a_killed_server_means_hold_and_a_restarted_one_resumes():
    endpoint = free_endpoint()
    environment = PlanarEnvironment(max_steps=100_000)
    servers = [EntryPoint("deploy.serve", *TINY, f"endpoint={endpoint}")]
    records: list[StepRecord] = []

    def cases(start: int = 0) -> list[str]:
        return [record.decision.case for record in records[start:]]

    def watch(record: StepRecord) -> None:
        records.append(record)
        if record.step == 20:
            servers[0].kill()
            servers.append(EntryPoint("deploy.serve", *TINY, f"endpoint={endpoint}"))
        if "hold" in cases() and cases(-10).count("newest") == 10:
            raise EnoughSeen

    client = PolicyClient(endpoint, schema=environment.schema)
    try:
        servers[0].wait_for(" at tcp://")
        client.connect(30.0)
        loop = ControlLoop(
            environment,
            client,
            controller=Controller(environment.schema),
            clock=MonotonicClock(),
            limits=LoopLimits(max_hold_s=90.0),
        )
        with pytest.raises(EnoughSeen):
            loop.run_episode(episode=3, seed=1, on_step=watch)
    finally:
        client.close()
        for server in servers:
            server.close()
    first_hold = cases().index("hold")
    assert cases(21)[: first_hold - 21].count("newest") <= 1  # one may have been under way
    assert 21 + 6 <= first_hold <= 21 + 8  # the last plan drove on to its end
    resumed = next(r.step for r in records[first_hold:] if r.decision.case == "newest")
    held = [r.decision.action for r in records[first_hold - 1 : resumed]]
    np.testing.assert_array_equal(held, [held[0]] * len(held))
    # what it resumes with was made after the restart, from where the robot is now
    slot = records[resumed].decision.slot
    assert slot is not None
    assert resumed - slot.start_step <= 3
    assert client.num_unsent > 0


def test_a_camera_process_that_dies_or_is_covered_is_flagged_and_plans_still_arrive():
    simulator = free_endpoint()
    environment = PlanarEnvironment(max_steps=100_000)
    covered = ("cover=black", "cover_start_s=1.0", "cover_length_s=1.0")
    records: list[StepRecord] = []
    reasons: list[str] = []
    with (
        FramePublisher(simulator, "front") as world,
        entry_point(
            "deploy.stream_cameras",
            "camera=front",
            "source=relay",
            f"source.endpoint={simulator}",
            f"endpoint={ANY_PORT}",
            *covered,
        ) as relay,
        serving(TinyPolicy(), cameras={"front": relay.endpoint}) as server,
        PolicyClient(server.endpoint, schema=environment.schema) as client,
    ):
        client.connect(10.0)

        def publish(observation: Observation, captured_s: float) -> None:
            world.publish(observation["front"], captured_s=captured_s)

        def watch(record: StepRecord) -> None:
            records.append(record)
            if record.plan is not None:
                level = record.source_levels["front"]
                condition = {0.0: "healthy", 1.0: "flagged"}[level]
                if not reasons or reasons[-1] != condition:
                    reasons.append(condition)
            if reasons == ["healthy", "flagged", "healthy"] and relay.process.poll() is None:
                relay.kill()
            if reasons[-2:] == ["healthy", "flagged"] and relay.process.poll() is not None:
                raise EnoughSeen
            assert len(records) < 600, reasons

        loop = ControlLoop(
            environment,
            client,
            controller=Controller(environment.schema),
            clock=MonotonicClock(),
            publish=publish,
        )
        with pytest.raises(EnoughSeen):
            loop.run_episode(episode=0, seed=1, on_step=watch)
    cases = [record.decision.case for record in records]
    assert cases.count("hold") == 0


def test_the_three_entry_points_play_episodes_together(tmp_path):
    raw, output = free_endpoint(), tmp_path / "results.json"
    environment = "task.environment._target_=tests.deploy.planar_environment.PlanarEnvironment"
    with (
        entry_point(
            "deploy.stream_cameras",
            "camera=front",
            "source=relay",
            f"source.endpoint={raw}",
            f"endpoint={ANY_PORT}",
        ) as camera,
        entry_point(
            "deploy.serve", *TINY, f"endpoint={ANY_PORT}", f"cameras={{front:{camera.endpoint}}}"
        ) as server,
        entry_point(
            "deploy.run_robot",
            environment,
            "task.environment.max_steps=30",
            f"server={server.endpoint}",
            f"publish={{front:{raw}}}",
            "num_episodes=2",
            "first_seed=7",
            "flag=none",
            "safety.low=[-2,-2]",
            "safety.high=[2,2]",
            f"output={output}",
        ) as robot,
    ):
        assert robot.wait() == 0, robot.lines
        assert server.terminate() == 0, server.lines
        assert camera.terminate() == 0, camera.lines
    results = json.loads(output.read_text())
    assert results["arguments"]["flag"] == "none"
    assert results["num_episodes"] == 2
    assert [row["seed"] for row in results["episodes"]] == [7, 8]
    for row in results["episodes"]:
        assert row["num_steps"] == 30
        statistics = row["statistics"]
        assert statistics["num_newest"] + statistics["num_continued"] >= 25, statistics
        assert "front: missing" not in statistics["flagged"]
    assert sum(line.startswith(("7 ", "8 ")) for line in robot.lines) == 2
    assert "policy server ended" in "\n".join(server.lines)


def test_a_slow_policy_means_old_plan_continued_then_hold():
    environment = PlanarEnvironment(max_steps=60)  # 20 Hz
    records: list[StepRecord] = []
    with (
        serving(TinyPolicy(inference_s=0.7, horizon=8)) as server,  # 14 control steps
        PolicyClient(server.endpoint, schema=environment.schema, patience_s=10.0) as client,
    ):
        client.connect(10.0)
        loop = ControlLoop(
            environment, client, controller=Controller(environment.schema), clock=MonotonicClock()
        )
        result = loop.run_episode(episode=0, seed=1, on_step=records.append)
    cases = [record.decision.case for record in records]
    assert cases[:9] == ["newest"] + ["continued"] * 7 + ["hold"]
    assert cases.count("hold") > 20
    assert result.num_steps == 60
    assert min(result.statistics.delays) >= 13  # measured as it was
    assert np.median(result.statistics.lateness_s) < 0.05  # the loop itself waited for nobody


def test_entry_points_refuse_misuse_in_one_line():
    with (
        entry_point("deploy.serve") as no_checkpoint,
        entry_point("deploy.serve", "chekpoint=x") as unknown_key,
        entry_point("deploy.stream_cameras", "camera=front", "rate_hz=fast") as wrong_type,
        entry_point(
            "deploy.run_robot", "connect_timeout_s=0.2", "server=tcp://127.0.0.1:9"
        ) as no_server,
    ):
        assert no_checkpoint.wait() != 0
        assert "forcing-serve: checkpoint is not given; say checkpoint=..." in no_checkpoint.lines
        assert unknown_key.wait() != 0
        assert any("chekpoint" in line for line in unknown_key.lines)
        assert wrong_type.wait() != 0
        assert any("fast" in line for line in wrong_type.lines)
        assert no_server.wait() != 0
        assert any("start forcing-serve there" in line for line in no_server.lines)


def test_a_pattern_is_streamed_as_jpeg_at_its_rate():
    with entry_point(
        "deploy.stream_cameras", "camera=front", "codec=jpeg", "rate_hz=50", f"endpoint={ANY_PORT}"
    ) as camera:
        subscriber = FrameSubscriber(camera.endpoint, "front")
        first = wait_for(subscriber.newest)
        started_s = time.monotonic()
        later = wait_for(
            lambda: (f := subscriber.newest()) and f.sequence >= first.sequence + 50 and f
        )
        elapsed_s = time.monotonic() - started_s
        assert elapsed_s > 0.9  # 50 frames at 50 Hz cannot come sooner; a busy machine is slower
        assert 0 < later.captured_s - first.captured_s < elapsed_s + 1
        assert not np.array_equal(first.image, later.image)
        assert first.image.shape == (64, 64, 3)
        subscriber.close()


def test_frames_of_a_stopped_relay_are_not_repeated():
    with (
        FramePublisher(ANY_PORT, "front") as world,
        entry_point(
            "deploy.stream_cameras",
            "camera=front",
            "source=relay",
            f"source.endpoint={world.endpoint}",
            f"endpoint={ANY_PORT}",
        ) as relay,
    ):
        subscriber = FrameSubscriber(relay.endpoint, "front")
        wait_for(lambda: world.publish(picture(), captured_s=-1.0) and subscriber.newest())
        time.sleep(0.3)
        last = subscriber.newest()
        time.sleep(0.3)
        assert subscriber.newest() is last
        assert last.captured_s == -1.0  # the time at which it was taken, not passed on
        subscriber.close()
