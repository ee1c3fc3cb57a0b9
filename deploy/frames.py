"""Frames: pictures from camera processes, one frame a message, newest wins.

    publisher (PUB)  --[camera name, header, picture]-->  subscriber (SUB, CONFLATE)

A frame is a single ZeroMQ part, because CONFLATE, which keeps only the newest message, does not
support several. One socket per camera at both ends, since CONFLATE keeps one message per connection
and not per topic; without it at the publisher, a full queue would drop the newest. Never trust a
queue for freshness: capture time and sequence number are in the frame.

    name \\0 | magic "FRM" | version u8 | header length u16 | msgpack header | picture
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal, Self

import msgspec
import numpy as np
import simplejpeg
import zmq

from deploy.wire import WireError

Codec = Literal["raw", "jpeg"]
MAGIC = b"FRM"
VERSION = 1
MAX_SIDE_PX = 4096
MAX_FRAME_BYTES = 32 * 1024 * 1024
JPEG_QUALITY = 95
_PREFIX = struct.Struct(">3sBH")


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture.

    Attributes:
        camera: name of the camera feature.
        sequence: rises by one per frame of a publisher; a gap is a lost frame.
        captured_s: `time.monotonic` of the host that took the picture.
        image: (H, W, C) uint8.
    """

    camera: str
    sequence: int
    captured_s: float
    image: np.ndarray


class _Header(msgspec.Struct, frozen=True, array_like=True):
    sequence: int
    captured_s: float
    shape: tuple[int, int, int]
    codec: Codec


_header_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(_Header)


def camera_endpoints(given: object, *, key: str) -> dict[str, str]:
    """Endpoints by camera as a configuration's `key` gave them; ValueError if it is not a dict."""
    if given is None:
        return {}
    if isinstance(given, dict) and all(isinstance(v, str) for item in given.items() for v in item):
        return given
    raise ValueError(f"{key} is {given!r}; expected {key}={{wrist:tcp://127.0.0.1:5600}}")


def pack_frame(frame: Frame, *, codec: Codec = "raw", quality: int = JPEG_QUALITY) -> bytes:
    """The bytes of one frame. ValueError unless the image is (H, W, C) uint8 within the limits."""
    image = np.ascontiguousarray(frame.image)
    if image.dtype != np.uint8 or image.ndim != 3:
        raise ValueError(f"{frame.camera!r}: expected (H, W, C) uint8, got {image.shape}")
    height, width, channels = image.shape
    _check_size(height, width, channels)
    if codec == "jpeg":
        space = {1: "GRAY", 3: "RGB"}.get(channels)
        if space is None:
            raise ValueError(f"{frame.camera!r}: JPEG takes 1 or 3 channels, got {channels}")
        # 4:4:4, since small pictures lose thin coloured things to chroma subsampling
        picture = simplejpeg.encode_jpeg(
            image, quality=quality, colorspace=space, colorsubsampling="444"
        )
    else:
        picture = image.tobytes()
    header = _header_encoder.encode(
        _Header(frame.sequence, frame.captured_s, (height, width, channels), codec)
    )
    return _topic(frame.camera) + _PREFIX.pack(MAGIC, VERSION, len(header)) + header + picture


def unpack_frame(data: bytes) -> Frame:
    """The frame in `data`.

    Raises:
        WireError: truncated, not a frame, over the limits (read from the headers, before anything
            is decoded), or a picture that is not what the header says.
    """
    if len(data) > MAX_FRAME_BYTES:
        raise WireError(f"frame of {len(data)} bytes; at most {MAX_FRAME_BYTES}")
    name, separator, rest = data.partition(b"\0")
    if not separator or len(rest) < _PREFIX.size:
        raise WireError(f"truncated frame of {len(data)} bytes")
    magic, version, header_length = _PREFIX.unpack_from(rest)
    if (magic, version) != (MAGIC, VERSION):
        raise WireError(f"frame {magic!r} version {version}; expected {MAGIC!r} version {VERSION}")
    body = rest[_PREFIX.size :]
    try:
        camera, header = name.decode(), _header_decoder.decode(body[:header_length])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"malformed frame header: {error}") from error
    image = _decode_picture(body[header_length:], header)
    return Frame(camera=camera, sequence=header.sequence, captured_s=header.captured_s, image=image)


def _decode_picture(picture: bytes, header: _Header) -> np.ndarray:
    height, width, channels = header.shape
    try:
        _check_size(height, width, channels)
        if header.codec == "raw":
            image = np.frombuffer(picture, np.uint8)
            return image.reshape(header.shape).copy()
        declared = simplejpeg.decode_jpeg_header(picture)[:2]
        if declared != (height, width):  # before decoding: a small file may say 65500 x 65500
            raise ValueError(f"JPEG is {declared}, its header says {(height, width)}")
        space = {1: "GRAY", 3: "RGB"}[channels]
        return simplejpeg.decode_jpeg(picture, colorspace=space)
    except (ValueError, KeyError) as error:
        raise WireError(f"frame {header.shape} {header.codec}: {error}") from error


def _check_size(height: int, width: int, channels: int) -> None:
    if not (0 < height <= MAX_SIDE_PX and 0 < width <= MAX_SIDE_PX and 0 < channels <= 4):
        raise ValueError(
            f"picture {(height, width, channels)}; sides 1..{MAX_SIDE_PX} px, 1 to 4 channels"
        )


def _topic(camera: str) -> bytes:
    """What a subscriber filters on; the separator keeps "wrist" from matching "wrist_left"."""
    return camera.encode() + b"\0"


class FramePublisher:
    """Sends the frames of one camera. Never blocks: a slow reader gets the newest.

    Args:
        endpoint: where to bind; "tcp://127.0.0.1:*" takes a free port, see `endpoint`.
        camera: name of the camera feature.
        codec: raw on one host, jpeg across a network.
    """

    def __init__(self, endpoint: str, camera: str, *, codec: Codec = "raw") -> None:
        self.camera, self._next_sequence = camera, 0
        self._codec: Codec = codec
        self._socket = zmq.Context.instance().socket(zmq.PUB)
        self._socket.linger = 0
        self._socket.conflate = True  # before bind, or it has no effect
        self._socket.bind(endpoint)

    @property
    def endpoint(self) -> str:
        """Where subscribers connect to."""
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def publish(self, image: np.ndarray, *, captured_s: float) -> int:
        """Send one picture (H, W, C) uint8 taken at `captured_s`; returns its sequence number."""
        sequence = self._next_sequence
        frame = Frame(camera=self.camera, sequence=sequence, captured_s=captured_s, image=image)
        self._socket.send(pack_frame(frame, codec=self._codec))
        self._next_sequence += 1
        return sequence

    def close(self) -> None:
        """Free the port."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FrameSubscriber:
    """The newest frame of one camera. Use it from one thread.

    Attributes:
        num_refused: messages that were not frames of this camera.
    """

    def __init__(self, endpoint: str, camera: str) -> None:
        self.camera, self.num_refused = camera, 0
        self._newest: Frame | None = None
        self._socket = zmq.Context.instance().socket(zmq.SUB)
        self._socket.linger = 0
        # All before connect: afterwards they have no effect on the connection.
        self._socket.conflate = True
        self._socket.maxmsgsize = MAX_FRAME_BYTES
        self._socket.reconnect_ivl, self._socket.reconnect_ivl_max = 50, 1000
        self._socket.subscribe(_topic(camera))
        self._socket.connect(endpoint)

    def newest(self) -> Frame | None:
        """The newest frame so far, None if the camera never spoke. Never blocks.

        A frame that came before is given again until another one arrives; its sequence number and
        capture time tell.
        """
        try:
            frame = unpack_frame(self._socket.recv(zmq.NOBLOCK))
        except zmq.Again:
            return self._newest
        except WireError:
            self.num_refused += 1
            return self._newest
        if frame.camera != self.camera:  # never a fall-back picture from somewhere else
            self.num_refused += 1
            return self._newest
        self._newest = frame
        return frame

    def wait(self, timeout_s: float) -> bool:
        """Whether a message arrives within `timeout_s`. For processes that only forward frames."""
        return bool(self._socket.poll(round(1000 * timeout_s)))

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()
