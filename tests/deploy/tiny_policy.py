"""TinyPolicy: a small, honest policy in numpy; deterministic given seed and requests."""

from __future__ import annotations

import time

import numpy as np

from policy.interface import Plan, Request
from teleop_data.schema import Feature, Schema

HORIZON = 8


def planar_schema(*, camera: bool = True, rate_hz: float = 20.0) -> Schema:
    """A point on a table: its position, a picture of it, a target position."""
    features = [
        Feature(name="position", shape=(2,), role="state", unit="m"),
        Feature(name="action", shape=(2,), role="action", unit="m"),
    ]
    if camera:
        features.insert(0, Feature(name="front", shape=(32, 32, 3), dtype="uint8", role="camera"))
    return Schema(features=tuple(features), rate_hz=rate_hz)


class TinyPolicy:
    """Walks straight to the origin, 0.1 of the way per step, with a little seeded noise.

    A session keeps a plan over time: slots that are committed (the first `delay`) stay as they
    were. Every request it was given is kept in `requests`, for tests to look at.

    Args:
        num_decided: this many slots after the committed ones have level 0; the rest ramps to 1.
        inference_s: time that each answer takes.
        fail_at: raises RuntimeError at this control step, once.
    """

    def __init__(
        self,
        schema: Schema | None = None,
        *,
        horizon: int = HORIZON,
        num_decided: int = HORIZON,
        inference_s: float = 0.0,
        fail_at: int | None = None,
        camera: bool = True,
        rate_hz: float = 20.0,
    ) -> None:
        self._schema = schema or planar_schema(camera=camera, rate_hz=rate_hz)
        self.horizon, self.num_decided = horizon, num_decided
        self.inference_s, self.fail_at = inference_s, fail_at
        self.requests: list[Request] = []
        self.num_sessions = 0

    @property
    def schema(self) -> Schema:
        return self._schema

    def start_session(self, seed: int) -> TinySession:
        self.num_sessions += 1
        return TinySession(self, seed)


class TinySession:
    """One episode: the decided actions by absolute step, and the generator."""

    def __init__(self, policy: TinyPolicy, seed: int) -> None:
        self._policy, self._rng = policy, np.random.default_rng(seed)
        self._decided: dict[int, np.ndarray] = {}

    def step(self, request: Request) -> Plan:
        policy = self._policy
        policy.requests.append(request)
        if policy.inference_s:
            time.sleep(policy.inference_s)
        if request.step == policy.fail_at:
            policy.fail_at = None
            raise RuntimeError("out of memory")
        target = np.asarray(request.observation["position"], np.float64)
        actions = []
        for p in range(policy.horizon):
            step = request.step + p
            target = 0.9 * target + self._rng.normal(0, 1e-3, 2)
            if p < request.delay and step in self._decided:
                target = self._decided[step]  # under way already
            self._decided[step] = target
            actions.append(target)
        num_free = max(1, policy.horizon - request.delay - policy.num_decided)
        ramp = (np.arange(policy.horizon) - request.delay - policy.num_decided + 1) / num_free
        return Plan(
            start_step=request.step,
            actions=np.stack(actions).astype(np.float32),
            levels=np.clip(ramp, 0, 1).astype(np.float32),
            network_calls=1,
        )
