"""Inference worker: the thread that owns the policy, its sessions and the camera streams."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from deploy.frames import FrameSubscriber
from deploy.inference_session import Answer, InferenceSession
from deploy.mailbox import Job, Mailbox, Work
from deploy.source_condition import ConditionLimits, Sample
from deploy.wire import (
    ErrorCode,
    ErrorReply,
    Observation,
    PlanReply,
    Reset,
    ResetDone,
    ServerMessage,
    Timing,
    WireError,
    pack_array,
    unpack_array,
    unpack_arrays,
)
from policy.interface import Policy, Request
from teleop_data.clock import Clock

logger = logging.getLogger(__name__)
Reply = Callable[[bytes, ServerMessage], None]


class InferenceWorker:
    """Answers what is in the mailbox, one request at a time.

    Args:
        policy: used from the thread that calls `run` only.
        mailbox: where work comes from.
        reply: called with (session, message) from that same thread.
        cameras: endpoint of the frame stream by camera feature.
        limits: when a source stops being believed.
        clock: the one that stamped the jobs and, on this host, the frames.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        mailbox: Mailbox,
        reply: Reply,
        cameras: Mapping[str, str],
        limits: ConditionLimits,
        clock: Clock,
    ) -> None:
        self._policy, self._mailbox, self._reply = policy, mailbox, reply
        self._cameras, self._limits, self._clock = cameras, limits, clock
        self._sessions: dict[bytes, InferenceSession] = {}
        self._episodes: dict[bytes, int] = {}

    def run(self, stopped: threading.Event) -> None:
        """Work until `stopped`. The subscribers live and die in this thread."""
        subscribers = [FrameSubscriber(endpoint, name) for name, endpoint in self._cameras.items()]
        try:
            while not stopped.is_set():
                if (taken := self._mailbox.take(timeout_s=0.1)) is not None:
                    self._do(*taken, subscribers)
        finally:
            for subscriber in subscribers:
                subscriber.close()

    def _do(self, session: bytes, work: Work, subscribers: list[FrameSubscriber]) -> None:
        try:
            if work.is_closed:
                self._sessions.pop(session, None)
                self._episodes.pop(session, None)
            if work.reset is not None:
                self._start_episode(session, work.reset)
            if work.job is not None:
                self._answer(session, work.job, subscribers)
        except Exception as error:
            logger.exception("the policy failed; its session starts afresh")
            request = None if work.job is None else work.job.observation.request
            text = f"{type(error).__name__}: {error}"
            self._reply(session, ErrorReply(code="policy_failed", text=text, request=request))
            self._start_afresh(session)

    def _start_afresh(self, session: bytes) -> None:
        try:
            if session in self._sessions:
                self._sessions[session].restart()
        except Exception:
            logger.exception("the policy cannot start a session; waiting for the next reset")
            del self._sessions[session]

    def _start_episode(self, session: bytes, reset: Reset) -> None:
        self._sessions.pop(session, None)  # whatever happens now, nothing of it is used again
        self._sessions[session] = InferenceSession(
            self._policy, seed=reset.seed, flag=reset.flag, limits=self._limits
        )
        self._episodes[session] = reset.episode
        self._reply(session, ResetDone(episode=reset.episode))

    def _answer(self, session: bytes, job: Job, subscribers: list[FrameSubscriber]) -> None:
        observation, started_s = job.observation, self._clock.now()
        refuse = _Refusal(self._reply, session, observation.request)
        if session not in self._sessions or self._episodes[session] != observation.episode:
            refuse("unknown_session", f"episode {observation.episode} was not reset here")
            return
        if started_s > job.received_s + observation.patience_s:
            waited_s = started_s - job.received_s
            refuse("expired", f"begun after {waited_s:.3f} s, patience {observation.patience_s} s")
            return
        try:
            samples = carried_samples(job) | newest_frames(subscribers, observation)
            answer = self._sessions[session].answer(
                Request(
                    step=observation.step,
                    observation={},
                    executed=None
                    if observation.executed is None
                    else unpack_array(observation.executed),
                    delay=observation.delay,
                ),
                samples,
                now_s=started_s,
            )
        except (ValueError, KeyError) as error:  # off schema, by the policy interface
            refuse("bad_request", str(error))
            return
        timing = Timing(
            queue_s=started_s - job.received_s, inference_s=self._clock.now() - started_s
        )
        self._reply(session, self._plan_reply(observation, answer, timing))

    def _plan_reply(self, observation: Observation, answer: Answer, timing: Timing) -> PlanReply:
        plan = answer.plan
        return PlanReply(
            request=observation.request,
            episode=observation.episode,
            start_step=plan.start_step,
            dt_s=1 / self._policy.schema.rate_hz,
            actions=pack_array(plan.actions),
            levels=pack_array(plan.levels),
            valid_until=plan.start_step + len(plan.actions),
            network_calls=plan.network_calls,
            source_levels=answer.assessment.levels,
            reasons=answer.assessment.reasons,
            timing=timing,
        )


class _Refusal:
    """Answers one request with an error."""

    def __init__(self, reply: Reply, session: bytes, request: int) -> None:
        self._reply, self._session, self._request = reply, session, request

    def __call__(self, code: ErrorCode, text: str) -> None:
        self._reply(self._session, ErrorReply(code=code, text=text, request=self._request))


def carried_samples(job: Job) -> dict[str, Sample]:
    """The sources that a request carries, with capture times on the server's clock.

    Only the age at sending is taken from the client's clock, so the two need not agree.
    """
    observation = job.observation
    arrays = unpack_arrays(observation.arrays)
    unknown = set(observation.captured_s) - set(arrays)
    if unknown:
        raise WireError(f"capture times of {sorted(unknown)}, which the request does not carry")
    return {
        name: Sample(
            value=value,
            captured_s=job.received_s
            - (observation.sent_s - observation.captured_s.get(name, observation.sent_s)),
        )
        for name, value in arrays.items()
    }


def newest_frames(
    subscribers: list[FrameSubscriber], observation: Observation
) -> dict[str, Sample]:
    """The newest frame of every streamed camera that spoke and that the request does not carry."""
    samples = {}
    for subscriber in subscribers:
        frame = subscriber.newest()
        if frame is not None and subscriber.camera not in observation.arrays:
            samples[subscriber.camera] = Sample(
                value=frame.image, captured_s=frame.captured_s, sequence=frame.sequence
            )
    return samples
