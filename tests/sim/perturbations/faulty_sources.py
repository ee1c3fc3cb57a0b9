"""Two cameras and a state for tests of faults, and what arrives of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.perturbations.kinds import perturbation
from sim.perturbations.sources import SourcePerturbation, Truth
from teleop_data.schema import Feature, Schema

SCHEMA = Schema(
    features=(
        Feature(name="front", shape=(24, 32, 3), dtype="uint8", role="camera"),
        Feature(name="wrist", shape=(16, 16, 3), dtype="uint8", role="camera"),
        Feature(name="state", shape=(3,)),
        Feature(name="action", shape=(2,), role="action"),
    ),
    rate_hz=10.0,
)
NUM_STEPS = 30


def observations(num_steps: int = NUM_STEPS, *, schema: Schema = SCHEMA) -> list[dict[str, Any]]:
    """Pictures without black or white, states around 0; the same at every call."""
    rng = np.random.default_rng(0)
    return [
        {
            f.name: rng.integers(1, 255, size=f.shape, dtype=np.uint8)
            if f.role == "camera"
            else rng.normal(size=f.shape).astype(np.float32)
            for f in schema.observed
        }
        for _ in range(num_steps)
    ]


def source_perturbation(kind: str, *, schema: Schema = SCHEMA, **options) -> SourcePerturbation:
    fault = perturbation(kind, schema=schema, **options)
    assert isinstance(fault, SourcePerturbation)
    return fault


def outage(kind: str, **options) -> SourcePerturbation:
    """Bad at steps 10 to 14, front camera only."""
    return source_perturbation(kind, sources=["front"], start=(10, 10), length=5, **options)


def play(
    fault: SourcePerturbation, seed: int, given: list[dict[str, Any]] | None = None
) -> list[tuple[dict[str, np.ndarray], Truth]]:
    """What arrives of `given` (`observations()`, if None) and the truth, step by step."""
    fault.reset(seed)
    told = []
    for step, value in enumerate(observations() if given is None else given):
        fault.window.advance(step, touches=lambda: False)
        told.append(fault.apply(value))
    return told
