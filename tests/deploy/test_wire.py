"""The wire: any allowed array comes back, anything else is refused with a reason."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deploy import wire

any_array = st.sampled_from(sorted(wire.ALLOWED_DTYPES)).flatmap(
    lambda dtype: hnp.arrays(
        dtype, hnp.array_shapes(min_dims=0, max_dims=wire.MAX_DIMENSIONS, min_side=0, max_side=5)
    )
)


def observation(**changes) -> wire.Observation:
    given = dict(
        request=7,
        episode=2,
        step=3,
        sent_s=10.5,
        patience_s=0.25,
        captured_s={"front": 10.4},
        arrays={"front": wire.pack_array(np.arange(12, dtype=np.uint8).reshape(2, 2, 3))},
        executed=wire.pack_array(np.ones((1, 2), np.float32)),
        delay=1,
    )
    return wire.Observation(**{**given, **changes})


@given(any_array)
def test_any_array_comes_back(array):
    back = wire.unpack_array(wire.pack_array(array))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()  # NaN payloads and signed zeros included
    assert back.flags.writeable
    assert back.base is None or back.base.base is None


def test_other_byte_orders_and_strides_arrive_as_values():
    array = np.arange(6, dtype=">f4").reshape(2, 3)[:, ::2]
    np.testing.assert_array_equal(wire.unpack_array(wire.pack_array(array)), array)


def test_every_message_comes_back():
    plan = wire.PlanReply(
        request=7,
        episode=2,
        start_step=3,
        dt_s=0.1,
        actions=wire.pack_array(np.zeros((4, 2), np.float32)),
        levels=wire.pack_array(np.linspace(0, 1, 4, dtype=np.float32)),
        valid_until=7,
        network_calls=1,
        source_levels={"front": 1.0},
        reasons={"front": "frozen"},
        timing=wire.Timing(queue_s=0.001, inference_s=0.01),
    )
    from_client = [
        wire.Hello(schema={"rate_hz": 10.0, "features": []}),
        wire.Reset(episode=1, seed=5, flag="none"),
        observation(),
    ]
    from_server = [
        wire.Welcome(session="ab", schema={}, wanted=("front",)),
        wire.ResetDone(episode=1),
        plan,
        wire.ErrorReply(code="busy", text="full"),
    ]
    assert [wire.unpack_from_client(wire.pack(m)) for m in from_client] == from_client
    assert [wire.unpack_from_server(wire.pack(m)) for m in from_server] == from_server


def test_the_bytes_of_a_reset_are_what_version_1_says():
    body = b"\x84\xa4type\xa5reset\xa7episode\x03\xa4seed\x05\xa4flag\xa4none"
    assert wire.pack(wire.Reset(episode=3, seed=5, flag="none")) == b"FRC\x01" + body


def test_every_truncation_is_refused():
    data = wire.pack(observation())
    for length in range(len(data)):
        with pytest.raises(wire.WireError):
            wire.unpack_from_client(data[:length])


@given(st.binary(max_size=300))
def test_garbage_is_refused(data):
    with pytest.raises(wire.WireError):
        wire.unpack_from_client(b"FRC\x01" + data)
    with pytest.raises(wire.WireError):
        wire.unpack_from_server(data)


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_read_never_a_crash(position, value):
    data = bytearray(wire.pack(observation()))
    data[position % len(data)] = value
    try:
        message = wire.unpack_from_client(bytes(data))
        if isinstance(message, wire.Observation):
            wire.unpack_arrays(message.arrays)
    except wire.WireError:
        pass


def test_another_version_is_named():
    data = bytearray(wire.pack(wire.Reset(episode=0, seed=0)))
    data[3] = 9
    with pytest.raises(wire.VersionMismatch, match="speaks wire version 9, this side 1"):
        wire.unpack_from_client(bytes(data))


def test_unknown_fields_and_the_other_sides_messages_are_refused():
    with pytest.raises(wire.WireError):
        wire.unpack_from_client(wire.pack(wire.ResetDone(episode=1)))
    extra = {"type": "reset", "episode": 1, "seed": 2, "flag": "auto", "cheat": 1}
    with pytest.raises(wire.WireError, match="cheat"):
        wire.unpack_from_client(b"FRC\x01" + msgspec.msgpack.encode(extra))


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (wire.WireArray("|O", (1,), b"\0" * 8), "dtype"),
        (wire.WireArray("float32", (2,), b"\0" * 7), "needs 8 bytes, got 7"),
        (wire.WireArray("uint8", (-1,), b""), "none negative"),
        (wire.WireArray("uint8", (1, 1, 1, 1, 1), b"\0"), "at most 4 dimensions"),
        (wire.WireArray("float64", (1 << 40,), b""), "at most 16777216"),
        (wire.WireArray("float64", (1 << 62, 4), b""), "at most 16777216"),  # would overflow
    ],
)
def test_a_hostile_array_is_refused(array, match):
    with pytest.raises(wire.WireError, match=match):
        wire.unpack_array(array)


def test_what_would_be_refused_is_not_sent():
    with pytest.raises(wire.WireError, match="dtype 'object'"):
        wire.pack_array(np.array([None]))
    with pytest.raises(wire.WireError, match="at most"):
        wire.pack_array(np.zeros(wire.MAX_ARRAY_BYTES + 1, np.uint8))


def test_too_many_or_too_large_is_refused():
    many = dict.fromkeys(map(str, range(wire.MAX_ARRAYS + 1)), wire.pack_array(np.zeros(1)))
    with pytest.raises(wire.WireError, match="33 arrays"):
        wire.unpack_arrays(many)
    with pytest.raises(wire.WireError, match="at most"):
        wire.unpack_from_client(b"\0" * (wire.MAX_MESSAGE_BYTES + 1))


def test_the_name_of_a_bad_array_is_told():
    with pytest.raises(wire.WireError, match="feature 'front'"):
        wire.unpack_arrays({"front": wire.WireArray("float32", (2,), b"")})
