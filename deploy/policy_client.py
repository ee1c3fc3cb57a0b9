"""Policy client: the stand-in for the policy where the robot lives. Imports no torch.

After `connect` no method blocks. When the server dies the client says so, and when it is back it
greets it again and resets the running episode; nothing that was sent before is executed afterwards.

    lost --connected--> greeting --Welcome--> ready --connection lost, or unknown session--> ...
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal, Self

import numpy as np
import zmq
from zmq.utils.monitor import parse_monitor_message

from deploy import wire
from deploy.plan_source import PlanAnswer
from policy.interface import Plan, Request
from teleop_data.clock import Clock, MonotonicClock
from teleop_data.schema import Schema

logger = logging.getLogger(__name__)
_HELLO_AGAIN_S = 1.0
_MAX_PENDING = 64


class HandshakeError(ConnectionError):
    """The server refused this robot: another wire version, a schema that does not fit, or full."""


class PolicyClient:
    """Talks to one policy server. Use it from one thread.

    Args:
        endpoint: the server's.
        schema: the features that this robot can send, and its action.
        patience_s: an answer that is begun later than this after its request's arrival is not
            wanted; None = five control steps.

    Attributes:
        num_errors: error replies so far, by code.
        num_unsent: requests that could not be sent since the server was away.
        num_dropped: answers that came after a newer one, or to nobody's question.
        last_error: text of the newest error reply, "" if there was none.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        schema: Schema,
        patience_s: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._endpoint, self._schema = endpoint, schema
        self._patience_s = 5 / schema.rate_hz if patience_s is None else patience_s
        self._clock = clock or MonotonicClock()
        self._state: Literal["lost", "greeting", "ready"] = "lost"
        self._welcome: wire.Welcome | None = None
        self._greeted_s = -_HELLO_AGAIN_S
        self._reset: wire.Reset | None = None
        self._next_request = 0
        self._sent_s: dict[int, float] = {}  # by request id, of those that have no answer yet
        self.num_errors: dict[str, int] = {}
        self.num_unsent = self.num_dropped = 0
        self.last_error = ""
        self._open()

    def _open(self) -> None:
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.immediate = True  # nothing queues for a server that is away
        self._socket.maxmsgsize = wire.MAX_MESSAGE_BYTES
        self._socket.rcvhwm = self._socket.sndhwm = 16
        self._socket.reconnect_ivl, self._socket.reconnect_ivl_max = 50, 1000
        self._socket.heartbeat_ivl, self._socket.heartbeat_timeout = 500, 2000
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
        self._socket.connect(self._endpoint)

    @property
    def is_connected(self) -> bool:
        """Whether the server accepted this robot and the connection stands, as far as is known."""
        return self._state == "ready"

    @property
    def wanted(self) -> tuple[str, ...]:
        """Features that the server wants in requests; empty before `connect`."""
        return () if self._welcome is None else self._welcome.wanted

    def connect(self, timeout_s: float = 5.0) -> Schema:
        """Shake hands; returns the policy's schema.

        Raises:
            HandshakeError: the server refused, with its reason.
            TimeoutError: nobody answered.
        """
        deadline_s = self._clock.now() + timeout_s
        self.last_error = ""
        while self._clock.now() < deadline_s:
            self.poll_reply()
            if self._welcome is not None:
                return Schema.from_json(self._welcome.schema)
            if self.last_error:
                raise HandshakeError(f"policy server at {self._endpoint}: {self.last_error}")
            self._socket.poll(20)
        raise TimeoutError(
            f"no policy server at {self._endpoint} within {timeout_s} s; start forcing-serve there"
        )

    def reset(self, *, episode: int, seed: int, flag: wire.Flag = "auto") -> None:
        """Begin an episode; also after a reconnection, as long as it is the current one."""
        self._reset = wire.Reset(episode=episode, seed=seed, flag=flag)
        self._sent_s.clear()
        if self._state == "ready":
            self._send(self._reset)

    def send_request(
        self, request: Request, *, captured_s: Mapping[str, float] | None = None
    ) -> bool:
        """Ask for a plan; False if that was not possible now. Never blocks.

        Args:
            request: of its observation the features that the server wants are sent.
            captured_s: capture times by feature; a feature without one was taken just now.

        Raises:
            RuntimeError: before the first `reset`.
            ValueError: the observation is off the schema, or not finite.
        """
        if self._reset is None:
            raise RuntimeError("send_request before reset: which episode is it?")
        self._advance()
        observation = self._pack_observation(request, captured_s or {})
        if self._state != "ready" or not self._send(observation):
            self.num_unsent += 1
            return False
        self._sent_s[observation.request] = observation.sent_s
        if len(self._sent_s) > _MAX_PENDING:
            del self._sent_s[min(self._sent_s)]
        return True

    def _pack_observation(
        self, request: Request, captured_s: Mapping[str, float]
    ) -> wire.Observation:
        assert self._reset is not None
        arrays = {k: v for k, v in request.observation.items() if k in self.wanted}
        for name, value in arrays.items():
            self._schema[name].check(value)
        self._next_request += 1
        return wire.Observation(
            request=self._next_request,
            episode=self._reset.episode,
            step=request.step,
            sent_s=self._clock.now(),
            patience_s=self._patience_s,
            captured_s={k: v for k, v in captured_s.items() if k in arrays},
            arrays={name: wire.pack_array(value) for name, value in arrays.items()},
            executed=None if request.executed is None else wire.pack_array(request.executed),
            delay=request.delay,
        )

    def poll_reply(self) -> PlanAnswer | None:
        """The newest plan that arrived since last time and answers this episode. Never blocks."""
        self._advance()
        newest = None
        while True:
            try:
                data = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return newest
            try:
                answer = self._read(wire.unpack_from_server(data))
            except wire.WireError as error:
                self._note_error("malformed", str(error))
            else:
                newest = answer or newest

    def _read(self, message: wire.ServerMessage) -> PlanAnswer | None:
        if isinstance(message, wire.PlanReply):
            return self._read_plan(message)
        if isinstance(message, wire.ErrorReply):
            self._sent_s.pop(message.request or 0, None)
            self._note_error(message.code, message.text)
            if message.code == "unknown_session":
                self._lose("the server does not know this session")
        elif isinstance(message, wire.Welcome):
            self._welcome, self._state = message, "ready"
            if self._reset is not None:  # the server was restarted in mid-episode
                self._send(self._reset)
        return None

    def _read_plan(self, reply: wire.PlanReply) -> PlanAnswer | None:
        sent_s = self._sent_s.get(reply.request)
        if sent_s is None:  # late, or asked in another episode or of a server that died
            self.num_dropped += 1
            return None
        # whatever was asked before is out of date now
        self._sent_s = {k: v for k, v in self._sent_s.items() if k > reply.request}
        actions = wire.unpack_array(reply.actions)
        num_entries = int(np.prod(self._schema.action.shape))
        if actions.ndim != 2 or actions.shape[1] != num_entries:
            raise wire.WireError(f"plan of shape {actions.shape}; expected (H, {num_entries})")
        plan = Plan(
            start_step=reply.start_step,
            actions=actions,
            levels=wire.unpack_array(reply.levels),
            network_calls=reply.network_calls,
        )
        return PlanAnswer(
            plan=plan,
            valid_until=reply.valid_until,
            round_trip_s=self._clock.now() - sent_s,
            source_levels=reply.source_levels,
            reasons=reply.reasons,
            timing=reply.timing,
        )

    def _advance(self) -> None:
        """Look at the connection's events and say hello when it is time."""
        while True:
            try:
                parts = self._monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            if parse_monitor_message(parts)["event"] == zmq.EVENT_DISCONNECTED:
                self._lose("connection lost")
        is_old = self._clock.now() - self._greeted_s >= _HELLO_AGAIN_S
        is_due = self._state == "lost" or (self._state == "greeting" and is_old)
        if is_due and self._send(wire.Hello(schema=self._schema.to_json())):
            self._state, self._greeted_s = "greeting", self._clock.now()

    def _lose(self, why: str) -> None:
        if self._state == "ready":
            logger.warning("policy server at %s: %s", self._endpoint, why)
        self._state = "lost"
        self._sent_s.clear()

    def _note_error(self, code: str, text: str) -> None:
        self.last_error = f"{code}: {text}"
        self.num_errors[code] = self.num_errors.get(code, 0) + 1

    def _send(self, message: wire.ClientMessage) -> bool:
        try:
            self._socket.send(wire.pack(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def close(self) -> None:
        """Disconnect; no method may be called afterwards."""
        self._socket.disable_monitor()
        self._monitor.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
