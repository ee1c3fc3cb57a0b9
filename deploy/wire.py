"""The wire: which messages policy client and policy server exchange, and how they become bytes.

    client                                   server
      Hello   --- schema the robot offers -->        (refused with a reason, or)
              <-- which features to send ---  Welcome
      Reset   --- episode, seed, flag ----->  ResetDone
      Observation ------------------------->  PlanReply, or ErrorReply

One message is one ZeroMQ part: three bytes of magic, one byte of version, msgpack. Arrays travel as
dtype name, shape and bytes; object arrays cannot be said. Imports neither torch nor zmq.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np

MAGIC = b"FRC"
VERSION = 1
MAX_MESSAGE_BYTES = 32 * 1024 * 1024
MAX_ARRAY_BYTES = 16 * 1024 * 1024
MAX_ARRAYS = 32
MAX_DIMENSIONS = 4
# Kinds that are plain numbers in a fixed layout. An object array ("|O") would be raw pointers.
ALLOWED_DTYPES = frozenset(
    {"bool", "float16", "float32", "float64"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)

Flag = Literal["auto", "none"]
ErrorCode = Literal[
    "version",  # the other side speaks another wire version
    "schema",  # robot and policy do not fit
    "bad_request",  # malformed, or off the schema
    "unknown_session",  # no hello and reset yet, or the server was restarted
    "busy",  # all sessions are taken
    "superseded",  # a newer request of the same session came before this one was begun
    "expired",  # its patience ended before it was begun
    "policy_failed",  # the policy raised; its session starts afresh with the next request
]


class WireError(ValueError):
    """A message that is not one of ours: malformed, truncated, too large, or another version."""


class WireArray(msgspec.Struct, frozen=True, array_like=True):
    """One numpy array: dtype name, shape, C-order little-endian bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello", forbid_unknown_fields=True):
    """A robot introduces itself: `Schema.to_json` of the features it can send, and its action."""

    schema: dict[str, Any]


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome", forbid_unknown_fields=True):
    """The server accepts: its session's id, the policy's schema, the features to send."""

    session: str
    schema: dict[str, Any]
    wanted: tuple[str, ...]


class Reset(msgspec.Struct, frozen=True, kw_only=True, tag="reset", forbid_unknown_fields=True):
    """Begin an episode. `flag` "none" makes the policy believe whatever a source delivers."""

    episode: int
    seed: int
    flag: Flag = "auto"


class ResetDone(
    msgspec.Struct, frozen=True, kw_only=True, tag="reset_done", forbid_unknown_fields=True
):
    """The episode may begin."""

    episode: int


class Observation(
    msgspec.Struct, frozen=True, kw_only=True, tag="observe", forbid_unknown_fields=True
):
    """What was observed at one control step; asks for a plan.

    Attributes:
        request: id that the answer repeats; rises within a client's life.
        episode: of the last reset.
        step: control step t of the observation.
        sent_s: the client's monotonic clock when this was sent. Only differences to `captured_s`
            are used, so the two machines' clocks need not agree.
        patience_s: after this time from its arrival the answer is worth nothing.
        captured_s: capture time by feature, on the client's monotonic clock.
        arrays: observed features by name; a missing source is absent.
        executed: (n, A) executed actions of steps t-n .. t-1, since the newest plan that arrived.
        delay: control steps that will pass before the answer is usable.
    """

    request: int
    episode: int
    step: int
    sent_s: float
    patience_s: float
    captured_s: dict[str, float]
    arrays: dict[str, WireArray]
    executed: WireArray | None = None
    delay: int = 0


class Timing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the server's time went, in seconds: waiting for its turn, and inference."""

    queue_s: float
    inference_s: float


class PlanReply(msgspec.Struct, frozen=True, kw_only=True, tag="plan", forbid_unknown_fields=True):
    """The answer to one observation.

    Attributes:
        request: id of the observation it answers.
        episode: of that observation.
        start_step: control step of the first slot.
        dt_s: duration of a slot.
        actions: (H, A) in the schema's units.
        levels: (H,) noise levels, 0 decided .. 1 pure noise.
        valid_until: first control step at which no slot of this plan may be executed any more.
        network_calls: denoiser calls the answer took.
        source_levels: noise level that each source was given.
        reasons: why, for the sources above 0.
        timing: where the server's time went.
    """

    request: int
    episode: int
    start_step: int
    dt_s: float
    actions: WireArray
    levels: WireArray
    valid_until: int
    network_calls: int
    source_levels: dict[str, float]
    reasons: dict[str, str]
    timing: Timing


class ErrorReply(
    msgspec.Struct, frozen=True, kw_only=True, tag="error", forbid_unknown_fields=True
):
    """Why something was not done. `request` is the observation's id, if it was one."""

    code: ErrorCode
    text: str
    request: int | None = None


ClientMessage = Hello | Reset | Observation
ServerMessage = Welcome | ResetDone | PlanReply | ErrorReply

_encoder = msgspec.msgpack.Encoder()
_client_decoder = msgspec.msgpack.Decoder(ClientMessage)
_server_decoder = msgspec.msgpack.Decoder(ServerMessage)


class VersionMismatch(WireError):
    """The other side speaks another version of the wire."""


def pack(message: ClientMessage | ServerMessage) -> bytes:
    """The bytes of one message. WireError if they would be refused at the other end."""
    data = MAGIC + bytes([VERSION]) + _encoder.encode(message)
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(f"message of {len(data)} bytes; at most {MAX_MESSAGE_BYTES}")
    return data


def unpack_from_client(data: bytes) -> ClientMessage:
    """The message in `data`, as the server reads it. WireError (VersionMismatch) if it is none."""
    return _decode(_client_decoder, data)


def unpack_from_server(data: bytes) -> ServerMessage:
    """The message in `data`, as the client reads it. WireError (VersionMismatch) if it is none."""
    return _decode(_server_decoder, data)


def _decode[M](decoder: msgspec.msgpack.Decoder[M], data: bytes) -> M:
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(f"message of {len(data)} bytes; at most {MAX_MESSAGE_BYTES}")
    if len(data) < 4 or data[:3] != MAGIC:
        raise WireError(f"not a message of this wire: begins with {data[:4]!r}, not {MAGIC!r}")
    if data[3] != VERSION:
        raise VersionMismatch(
            f"the other side speaks wire version {data[3]}, this side {VERSION}; "
            "install the same release on robot and server"
        )
    try:
        return decoder.decode(memoryview(data)[4:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"malformed message of {len(data)} bytes: {error}") from error


def pack_array(array: np.ndarray) -> WireArray:
    """`array` as it travels. WireError for a dtype or size that the other end would refuse."""
    dtype = array.dtype.name
    _check_layout(dtype, array.shape)
    little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return WireArray(dtype=dtype, shape=array.shape, data=little_endian.tobytes())


def unpack_array(array: WireArray) -> np.ndarray:
    """The numpy array, in memory of its own.

    Raises:
        WireError: a dtype off the list, a shape or size over the limits, or a number of bytes that
            does not fit the shape.
    """
    expected = _check_layout(array.dtype, array.shape)
    if len(array.data) != expected:
        raise WireError(
            f"array {array.shape} {array.dtype} needs {expected} bytes, got {len(array.data)}"
        )
    flat = np.frombuffer(array.data, dtype=np.dtype(array.dtype).newbyteorder("<"))
    return flat.reshape(array.shape).astype(array.dtype)


def unpack_arrays(arrays: Mapping[str, WireArray]) -> dict[str, np.ndarray]:
    """All arrays of a message by name. WireError as `unpack_array`, with the name."""
    if len(arrays) > MAX_ARRAYS:
        raise WireError(f"{len(arrays)} arrays in one message; at most {MAX_ARRAYS}")
    unpacked = {}
    for name, array in arrays.items():
        try:
            unpacked[name] = unpack_array(array)
        except WireError as error:
            raise WireError(f"feature {name!r}: {error}") from error
    return unpacked


def _check_layout(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes that an array of `shape` takes; WireError if it is not allowed."""
    if dtype not in ALLOWED_DTYPES:
        raise WireError(f"dtype {dtype!r}; allowed: {', '.join(sorted(ALLOWED_DTYPES))}")
    if len(shape) > MAX_DIMENSIONS or any(size < 0 for size in shape):
        raise WireError(f"shape {shape}; at most {MAX_DIMENSIONS} dimensions, none negative")
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > MAX_ARRAY_BYTES:
        raise WireError(f"array {shape} {dtype} has {size} bytes; at most {MAX_ARRAY_BYTES}")
    return size
