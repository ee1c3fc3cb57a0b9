"""Policy server and client over real sockets in one process; a real thread for each side."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import zmq

from deploy import wire
from deploy.frames import FramePublisher
from deploy.policy_client import HandshakeError, PolicyClient
from deploy.policy_server import PolicyServer
from policy.interface import Request
from tests.deploy.test_frames import ANY_PORT, wait_for
from tests.deploy.tiny_policy import TinyPolicy, planar_schema

SCHEMA = planar_schema()
OBSERVATION = {
    "front": np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8),
    "position": np.array([0.5, 0.25], np.float32),
}


@contextmanager
def serving(policy: TinyPolicy, **arguments) -> Iterator[PolicyServer]:
    """A server that runs until the block ends."""
    server = PolicyServer(policy, endpoint=ANY_PORT, **arguments)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(timeout=20)
        assert not thread.is_alive()


@contextmanager
def connected(server: PolicyServer, *, schema=SCHEMA, reset: bool = True, **arguments):
    """A client that shook hands and began episode 0."""
    with PolicyClient(server.endpoint, schema=schema, patience_s=30.0, **arguments) as client:
        client.connect(10.0)
        if reset:
            client.reset(episode=0, seed=5)
        yield client


def ask(client: PolicyClient, step: int, *, observation=OBSERVATION, **arguments):
    """The answer to one request."""
    assert client.send_request(Request(step=step, observation=observation, **arguments))
    return wait_for(client.poll_reply)


def test_a_plan_arrives_unchanged_and_the_policy_sees_what_was_sent():
    policy, twin = TinyPolicy(), TinyPolicy()
    session = twin.start_session(5)
    with serving(policy) as server, connected(server) as client:
        assert client.connect().to_json() == SCHEMA.to_json()
        executed = np.array([[0.1, 0.2]], np.float32)
        answers = [ask(client, 0), ask(client, 1, executed=executed, delay=1)]
    for step, answer in enumerate(answers):
        expected = session.step(replace(policy.requests[step]))
        np.testing.assert_array_equal(answer.plan.actions, expected.actions)
        np.testing.assert_array_equal(answer.plan.levels, expected.levels)
        assert (answer.plan.start_step, answer.valid_until) == (step, step + 8)
        assert answer.source_levels == {"front": 0.0, "position": 0.0}
        assert 0 <= answer.timing.inference_s <= answer.round_trip_s
    np.testing.assert_array_equal(policy.requests[0].observation["front"], OBSERVATION["front"])
    np.testing.assert_array_equal(policy.requests[1].executed, executed)
    assert policy.requests[1].delay == 1


def test_a_camera_that_never_speaks_is_flagged_and_the_plan_still_arrives():
    policy = TinyPolicy()
    silent = {"front": "tcp://127.0.0.1:9"}
    with serving(policy, cameras=silent) as server, connected(server) as client:
        assert client.wanted == ("position",)
        answer = ask(client, 0)  # the client does not send what is not wanted
    assert answer.source_levels == {"front": 1.0, "position": 0.0}
    assert answer.reasons == {"front": "missing"}
    assert "front" not in policy.requests[0].observation


def test_streamed_frames_reach_the_policy_go_stale_and_come_back():
    policy = TinyPolicy()
    with (
        FramePublisher(ANY_PORT, "front") as camera,
        serving(policy, cameras={"front": camera.endpoint}) as server,
        connected(server) as client,
    ):
        steps = iter(range(10_000))

        def look(image, *, age_s):
            """What the server made of a frame that old."""
            camera.publish(image, captured_s=time.monotonic() - age_s)
            time.sleep(0.02)
            return ask(client, next(steps)).reasons.get("front", "healthy")

        rng = np.random.default_rng(0)

        def noise():
            return rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)

        wait_for(lambda: look(noise(), age_s=0.0) == "healthy")
        last = noise()
        assert wait_for(lambda: look(last, age_s=0.0) == "healthy")
        np.testing.assert_array_equal(policy.requests[-1].observation["front"], last)
        assert look(noise(), age_s=60.0) == "stale"
        assert look(np.zeros((32, 32, 3), np.uint8), age_s=0.0) == "covered"
        assert look(noise(), age_s=0.0) == "healthy"
        time.sleep(0.3)  # 6 control steps of silence
        assert ask(client, next(steps)).reasons == {"front": "stale"}


def test_a_frozen_stream_is_flagged_while_the_robot_moves_and_not_if_flag_is_none():
    policy = TinyPolicy()
    with (
        FramePublisher(ANY_PORT, "front") as camera,
        serving(policy, cameras={"front": camera.endpoint}) as server,
        connected(server) as client,
    ):
        for flag, expected in (("auto", "frozen"), ("none", "believed")):
            client.reset(episode=7, seed=1, flag=flag)
            found = []
            for step in range(12):
                camera.publish(OBSERVATION["front"], captured_s=time.monotonic())
                time.sleep(0.02)
                position = np.array([0.1 * step, 0], np.float32)
                answer = ask(client, step, observation={"position": position})
                found.append(answer.reasons.get("front", "believed"))
            assert found[-4:] == [expected] * 4


def test_the_newest_request_wins_while_the_policy_is_busy():
    policy = TinyPolicy(inference_s=0.3)
    with serving(policy) as server, connected(server) as client:
        for step in range(5):
            assert client.send_request(Request(step=step, observation=OBSERVATION))
            time.sleep(0.02)
        last = wait_for(lambda: (a := client.poll_reply()) and a.plan.start_step == 4 and a)
        assert last is not None
        assert [r.step for r in policy.requests] == [0, 4]
        assert client.num_errors == {"superseded": 3}


def test_a_request_that_waited_too_long_is_not_computed():
    policy = TinyPolicy(inference_s=0.5)
    with serving(policy) as server, connected(server) as busy:
        busy.send_request(Request(step=0, observation=OBSERVATION))
        time.sleep(0.1)
        with PolicyClient(server.endpoint, schema=SCHEMA, patience_s=0.05) as hasty:
            hasty.connect()
            hasty.reset(episode=0, seed=0)
            hasty.send_request(Request(step=0, observation=OBSERVATION))
            wait_for(lambda: hasty.poll_reply() or hasty.num_errors)
            assert hasty.num_errors == {"expired": 1}
        assert len(policy.requests) == 1


def test_two_robots_have_their_own_sessions():
    policy, twins = TinyPolicy(), [TinyPolicy(), TinyPolicy()]
    with serving(policy) as server, connected(server) as one, connected(server) as two:
        two.reset(episode=0, seed=99)
        answers = [ask(one, 0), ask(two, 0), ask(one, 1), ask(two, 1)]
    for number, (twin, seed) in enumerate(zip(twins, (5, 99), strict=True)):
        session = twin.start_session(seed)
        for step in range(2):
            expected = session.step(policy.requests[2 * step + number])
            np.testing.assert_array_equal(answers[2 * step + number].plan.actions, expected.actions)


def test_a_policy_that_fails_is_reported_and_serves_on():
    policy = TinyPolicy(fail_at=1)
    with serving(policy) as server, connected(server) as client:
        ask(client, 0)
        client.send_request(Request(step=1, observation=OBSERVATION))
        wait_for(lambda: client.poll_reply() or client.num_errors)
        assert client.last_error == "policy_failed: RuntimeError: out of memory"
        answer = ask(client, 2, executed=np.zeros((2, 2), np.float32))
        assert answer.plan.start_step == 2
        assert policy.num_sessions == 2
        assert policy.requests[-1].executed is None  # a fresh session's first request
        assert client.is_connected


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"arrays": {"front": wire.WireArray("|O", (1,), b"\0" * 8)}}, "dtype"),
        ({"arrays": {"rear": wire.pack_array(np.zeros(2, np.float32))}}, "no source 'rear'"),
        ({"arrays": {"position": wire.pack_array(np.zeros(3, np.float32))}}, r"shape \(3,\)"),
        ({"arrays": {"position": wire.pack_array(np.float32([0, np.nan]))}}, "not finite"),
        ({"executed": wire.pack_array(np.zeros((1, 3), np.float32))}, "executed actions"),
        ({"captured_s": {"front": 0.0}}, "capture times"),
    ],
)
def test_a_bad_request_is_refused_with_a_reason_and_nothing_breaks(change, match):
    good = {"position": wire.pack_array(OBSERVATION["position"])}
    with serving(TinyPolicy()) as server, connected(server) as client:
        request = wire.Observation(
            **{
                **dict(request=900, episode=0, step=0, sent_s=0.0, patience_s=9.0),
                **dict(captured_s={}, arrays=good),
                **change,
            }
        )
        client._send(request)  # what no client of ours would send
        wait_for(lambda: client.poll_reply() or client.num_errors)
        assert client.num_errors == {"bad_request": 1}
        assert re.search(match, client.last_error)
        assert ask(client, 0).plan.start_step == 0


def test_garbage_wrong_versions_and_strangers_get_a_clear_answer():
    with serving(TinyPolicy()) as server, connected(server) as client:
        stranger = zmq.Context.instance().socket(zmq.DEALER)
        stranger.linger = 0
        stranger.rcvtimeo = 5000
        stranger.connect(server.endpoint)

        def say(*parts: bytes) -> wire.ErrorReply:
            stranger.send_multipart(parts)
            reply = wire.unpack_from_server(stranger.recv())
            assert isinstance(reply, wire.ErrorReply)
            return reply

        assert say(b"\x80\x04pickle.").code == "bad_request"
        assert say(b"a", b"b").code == "bad_request"
        other_version = bytearray(wire.pack(wire.Reset(episode=0, seed=0)))
        other_version[3] = 2
        reply = say(bytes(other_version))
        assert reply.code == "version"
        assert "speaks wire version 2, this side 1" in reply.text
        reply = say(wire.pack(wire.Reset(episode=0, seed=0)))
        assert (reply.code, reply.request) == ("unknown_session", None)
        assert say(wire.pack(wire.Hello(schema={"rate_hz": 1}))).code == "bad_request"
        stranger.close()
        assert ask(client, 0).plan.start_step == 0


def test_a_client_of_another_version_says_so(monkeypatch):
    with serving(TinyPolicy()) as server:
        client = PolicyClient(server.endpoint, schema=SCHEMA)
        honest = wire.pack
        monkeypatch.setattr(
            wire, "pack", lambda m: honest(m)[:3] + b"\x02" + honest(m)[4:]
            if isinstance(m, wire.Hello) else honest(m)
        )  # fmt: skip
        with pytest.raises(HandshakeError, match="wire version 2"):
            client.connect(10.0)
        client.close()


@pytest.mark.parametrize(
    ("schema", "match"),
    [
        (planar_schema(rate_hz=10.0), "rate: 20.0 Hz against 10.0 Hz"),
        (SCHEMA.select(["position", "action"]), r"needs \['front'\]"),
        (replace(SCHEMA, features=(*SCHEMA.features[:2],
            replace(SCHEMA["action"], shape=(3,)))), "action: .*against"),
    ],
)  # fmt: skip
def test_a_robot_that_does_not_fit_is_refused_with_the_difference(schema, match):
    with serving(TinyPolicy()) as server:
        client = PolicyClient(server.endpoint, schema=schema)
        with pytest.raises(HandshakeError, match=match):
            client.connect(10.0)
        client.close()


def test_a_robot_may_offer_more_than_is_wanted():
    with serving(TinyPolicy(camera=False)) as server, connected(server) as client:
        assert client.wanted == ("position",)
        assert ask(client, 0).source_levels == {"position": 0.0}


def test_a_stream_for_no_camera_is_refused():
    with pytest.raises(ValueError, match=r"streams for \['position'\].*cameras are \['front'\]"):
        PolicyServer(TinyPolicy(), endpoint=ANY_PORT, cameras={"position": "tcp://127.0.0.1:9"})


def test_sessions_are_bounded_and_a_silent_one_gives_way():
    with serving(TinyPolicy(), max_sessions=1, expiry_s=0.3) as server, connected(server) as first:
        ask(first, 0)
        second = PolicyClient(server.endpoint, schema=SCHEMA)
        with pytest.raises(HandshakeError, match="all 1 sessions are taken"):
            second.connect(10.0)
        time.sleep(0.4)
        second.connect(10.0)
        second.reset(episode=0, seed=0)
        assert ask(second, 0).plan.start_step == 0
        # the first one is told, and asks for its place again
        first.send_request(Request(step=1, observation=OBSERVATION))
        wait_for(lambda: first.poll_reply() or "unknown_session" in first.num_errors)
        second.close()


def test_nobody_there_is_a_clear_error():
    with (
        PolicyClient("tcp://127.0.0.1:9", schema=SCHEMA) as client,
        pytest.raises(TimeoutError, match="no policy server at tcp://127.0.0.1:9 within 0.2 s"),
    ):
        client.connect(0.2)


def test_answers_of_another_episode_are_dropped():
    with serving(TinyPolicy(inference_s=0.2)) as server, connected(server) as client:
        client.send_request(Request(step=0, observation=OBSERVATION))
        time.sleep(0.1)
        client.reset(episode=1, seed=1)
        client.send_request(Request(step=0, observation=OBSERVATION))
        wait_for(client.poll_reply)
        assert client.num_dropped == 1


def test_asking_never_waits_for_a_slow_policy():
    with serving(TinyPolicy(inference_s=1.0)) as server, connected(server) as client:
        started_s = time.monotonic()
        for step in range(50):
            client.send_request(Request(step=step, observation=OBSERVATION))
            assert client.poll_reply() is None
        assert time.monotonic() - started_s < 0.9


def test_a_request_off_the_schema_does_not_leave_the_robot():
    with serving(TinyPolicy()) as server, connected(server) as client:
        broken = {**OBSERVATION, "position": np.array([np.nan, 0], np.float32)}
        with pytest.raises(ValueError, match="'position': not finite"):
            client.send_request(Request(step=0, observation=broken))
    with (
        PolicyClient("tcp://127.0.0.1:9", schema=SCHEMA) as fresh,
        pytest.raises(RuntimeError, match="before reset"),
    ):
        fresh.send_request(Request(step=0, observation=OBSERVATION))
