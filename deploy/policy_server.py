"""Policy server: robots talk to it over sockets; inference has a thread of its own.

    ROUTER <-> socket thread --mailbox, newest request per session--> inference thread
                     ^------------------ inproc, packed replies ------------'

The socket thread never computes, so handshakes, refusals and newer requests are handled at once,
however slow the policy is. A session is one connection that said hello; its state is one episode.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Mapping

import zmq

from deploy import wire
from deploy.inference_worker import InferenceWorker
from deploy.mailbox import Job, Mailbox
from deploy.source_condition import ConditionLimits
from policy.interface import Policy
from teleop_data.clock import Clock, MonotonicClock
from teleop_data.schema import Schema, first_difference

logger = logging.getLogger(__name__)
_POLL_MS = 100
_SEND_TIMEOUT_MS = 1000


class PolicyServer:
    """Serves one policy. `run` in one thread, `stop` from anywhere.

    Args:
        policy: what plans.
        endpoint: where to bind; "tcp://127.0.0.1:*" takes a free port, see `endpoint`. There is no
            authentication, so bind to other machines only on a network that you trust.
        cameras: endpoint of the frame stream by camera feature; the others come with the requests.
        limits: when a source stops being believed.
        max_sessions: robots at a time; another one is refused.
        expiry_s: a session that was silent for as long gives its place away when it is needed.

    Raises:
        ValueError: a stream is given for something that is not a camera of the policy.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        endpoint: str = "tcp://127.0.0.1:5555",
        cameras: Mapping[str, str] | None = None,
        limits: ConditionLimits | None = None,
        max_sessions: int = 8,
        expiry_s: float = 60.0,
        clock: Clock | None = None,
    ) -> None:
        self._schema, self._cameras = policy.schema, dict(cameras or {})
        self._check_cameras()
        self._clock = clock or MonotonicClock()
        self._max_sessions, self._expiry_s = max_sessions, expiry_s
        self._heard_s: dict[bytes, float] = {}  # by session, in the order of their hellos
        self._stopped = threading.Event()
        self._mailbox = Mailbox()
        self._inproc = f"inproc://policy-server-{uuid.uuid4().hex}"
        self._worker = InferenceWorker(
            policy,
            mailbox=self._mailbox,
            reply=self._reply_from_worker,
            cameras=self._cameras,
            limits=limits or ConditionLimits(),
            clock=self._clock,
        )
        self._router, self._replies = self._bind(endpoint)

    def _check_cameras(self) -> None:
        cameras = [feature.name for feature in self._schema.with_role("camera")]
        unknown = sorted(set(self._cameras) - set(cameras))
        if unknown:
            raise ValueError(f"streams for {unknown}; the policy's cameras are {cameras}")

    def _bind(self, endpoint: str) -> tuple[zmq.Socket, zmq.Socket]:
        context = zmq.Context.instance()
        replies = context.socket(zmq.PULL)
        replies.linger = 0
        replies.bind(self._inproc)
        router = context.socket(zmq.ROUTER)
        router.linger = 0
        router.maxmsgsize = wire.MAX_MESSAGE_BYTES
        router.rcvhwm = router.sndhwm = 64
        router.heartbeat_ivl, router.heartbeat_timeout = 500, 2000
        router.bind(endpoint)
        return router, replies

    @property
    def endpoint(self) -> str:
        """Where clients connect to."""
        return self._router.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def stop(self) -> None:
        """Make `run` return soon. From any thread, or from a signal handler."""
        self._stopped.set()

    def run(self) -> None:
        """Serve until `stop`, then free the port. Owns the ROUTER socket meanwhile."""
        thread = threading.Thread(target=self._run_worker, name="inference", daemon=True)
        thread.start()
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._replies, zmq.POLLIN)
        try:
            while not self._stopped.is_set() and thread.is_alive():
                ready = dict(poller.poll(_POLL_MS))
                if self._replies in ready:
                    self._router.send_multipart(self._replies.recv_multipart(), zmq.NOBLOCK)
                if self._router in ready:
                    self._receive()
            if not self._stopped.is_set():
                logger.critical("the inference thread died; the server ends")
        finally:
            self._stopped.set()
            thread.join(timeout=5.0)
            self._router.close()
            self._replies.close()

    def _run_worker(self) -> None:
        self._worker_socket = zmq.Context.instance().socket(zmq.PUSH)
        self._worker_socket.linger = 0
        self._worker_socket.sndtimeo = _SEND_TIMEOUT_MS
        self._worker_socket.connect(self._inproc)
        try:
            self._worker.run(self._stopped)
        finally:
            self._worker_socket.close()

    def _reply_from_worker(self, session: bytes, message: wire.ServerMessage) -> None:
        try:
            self._worker_socket.send_multipart([session, wire.pack(message)])
        except zmq.Again:
            logger.error(
                "reply dropped: the socket thread took nothing for %s ms", _SEND_TIMEOUT_MS
            )

    def _receive(self) -> None:
        session, *parts = self._router.recv_multipart(zmq.NOBLOCK)
        if len(parts) != 1:
            text = f"a message has one part, got {len(parts)}"
            self._send(session, wire.ErrorReply(code="bad_request", text=text))
            return
        try:
            message = wire.unpack_from_client(parts[0])
        except wire.VersionMismatch as error:
            self._send(session, wire.ErrorReply(code="version", text=str(error)))
        except wire.WireError as error:
            self._send(session, wire.ErrorReply(code="bad_request", text=str(error)))
        else:
            self._handle(session, message)

    def _handle(self, session: bytes, message: wire.ClientMessage) -> None:
        if isinstance(message, wire.Hello):
            self._send(session, self._greet(session, message))
            return
        if session not in self._heard_s:
            request = message.request if isinstance(message, wire.Observation) else None
            text = "say hello first; the server may have been restarted"
            error = wire.ErrorReply(code="unknown_session", text=text, request=request)
            self._send(session, error)
            return
        self._heard_s[session] = now_s = self._clock.now()
        if isinstance(message, wire.Reset):
            superseded = self._mailbox.put_reset(session, message)
        else:
            superseded = self._mailbox.put_job(session, Job(observation=message, received_s=now_s))
        if superseded is not None:
            request = superseded.observation.request
            text = f"request {request} was not begun when a newer message came"
            error = wire.ErrorReply(code="superseded", text=text, request=request)
            self._send(session, error)

    def _greet(self, session: bytes, hello: wire.Hello) -> wire.Welcome | wire.ErrorReply:
        try:
            offered = Schema.from_json(hello.schema)
        except ValueError as error:
            return wire.ErrorReply(code="bad_request", text=str(error))
        difference = schema_problem(self._schema, offered=offered, streamed=self._cameras)
        if difference is not None:
            return wire.ErrorReply(code="schema", text=difference)
        if not self._make_room(session):
            text = f"all {self._max_sessions} sessions are taken; end one or raise max_sessions"
            return wire.ErrorReply(code="busy", text=text)
        self._heard_s[session] = self._clock.now()
        wanted = [f.name for f in self._schema.observed if f.name not in self._cameras]
        return wire.Welcome(
            session=session.hex(), schema=self._schema.to_json(), wanted=tuple(wanted)
        )

    def _make_room(self, session: bytes) -> bool:
        if session in self._heard_s or len(self._heard_s) < self._max_sessions:
            return True
        oldest = min(self._heard_s, key=lambda s: self._heard_s[s])
        if self._clock.now() - self._heard_s[oldest] < self._expiry_s:
            return False
        del self._heard_s[oldest]
        self._mailbox.close_session(oldest)
        return True

    def _send(self, session: bytes, message: wire.ServerMessage) -> None:
        self._router.send_multipart([session, wire.pack(message)], zmq.NOBLOCK)


def schema_problem(needed: Schema, *, offered: Schema, streamed: Mapping[str, str]) -> str | None:
    """Why a robot does not fit a policy, in one sentence; None if it does.

    Args:
        needed: the policy's schema.
        offered: the robot's; it may offer more than is needed.
        streamed: the cameras that come from streams instead.
    """
    names = [f.name for f in (*needed.observed, needed.action) if f.name not in streamed]
    missing = [name for name in names if name not in offered.names]
    if missing:
        return (
            f"the policy needs {missing}; the robot offers {list(offered.names)} and streams bring "
            f"{sorted(streamed)}"
        )
    difference = first_difference(needed.select(names), offered.select(names))
    return None if difference is None else f"policy against robot: {difference}"
