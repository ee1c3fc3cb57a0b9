"""Automatic flags beside the oracle's, on swap: which bad pictures are found, how soon, how many
good ones are suspected.

    FORCING_STORE=swap.zarr pytest -m benchmark tests/benchmarks/test_automatic_flags.py -s

The store is what the novelty is fitted on: `forcing-generate task=swap output=swap.zarr
num_episodes=400`. The demonstrator, who does not look, drives fresh episodes under each condition.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from deploy.rollout import VIRTUAL_LIMITS
from deploy.source_condition import Sample, SourceCondition
from policy.novelty import Novelty, fit_novelty
from sim.arm.environment import ArmEnvironment
from sim.experts.scripted_hand import ScriptedHand
from sim.perturbations.conditions import (
    PerturbationConfig,
    condition_names,
    perturbations_of,
    read_condition,
)
from sim.perturbations.environment import PerturbedEnvironment
from sim.perturbations.kinds import SOURCE_KINDS
from sim.rendering.camera_renderer import gl_is_available
from sim.tasks.swap import Swap
from teleop_data.environment import Observation, StepResult
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Schema
from teleop_data.windows import split_episodes

CAMERAS = ("front", "wrist")
NUM_EPISODES, FIRST_SEED = 24, 500_000
STORE = os.environ.get("FORCING_STORE", "")


class Replay:
    """An Environment that shows the observations of one episode again, whatever is done."""

    def __init__(self, schema: Schema, observations: list[Observation]) -> None:
        self.schema, self.max_steps = schema, len(observations)
        self._observations = observations

    def reset(self, seed: int) -> Observation:
        self._step = 0
        return self._observations[0]

    def step(self, action: np.ndarray) -> StepResult:
        self._step = min(self._step + 1, self.max_steps - 1)
        return StepResult(
            observation=self._observations[self._step], reward=0.0, success=False, terminated=False
        )

    def render(self) -> np.ndarray:
        return self._observations[self._step]["front"]

    def close(self) -> None:
        pass


def conditions() -> Iterator[PerturbationConfig]:
    """Every condition that spoils what is seen; the occluder before either camera."""
    for name in condition_names():
        if name in ("none", "nudge", "action_latency"):
            continue
        condition = read_condition(name)
        if name == "occluder":
            for camera in CAMERAS:
                yield replace(condition, name=f"{name} {camera}", sources=[camera])
        else:
            yield condition


def judged(environment, hand: ScriptedHand | None, novelty: Novelty, *, seed: int):
    """(T, 2, 2) levels of an episode: by step and camera, the true one and the one found."""
    sources = SourceCondition(environment.schema, limits=VIRTUAL_LIMITS, novelty=novelty)
    observation, rate_hz = environment.reset(seed), environment.schema.rate_hz
    idle = np.zeros(environment.schema.action.shape, np.float32)
    if hand is not None:
        hand.reset(seed)
    levels = []
    for step in range(environment.max_steps):
        sight, now_s = environment.sight, step / rate_hz
        samples = {
            name: Sample(value=value, captured_s=now_s - sight.ages.get(name, 0) / rate_hz)
            for name, value in sight.arrived.items()
        }
        found = sources.assess(samples, now_s=now_s).levels
        levels.append([(sight.truth.get(camera, 0.0), found[camera]) for camera in CAMERAS])
        action = idle if hand is None else hand.act(observation)
        observation = environment.step(action).observation
    return np.array(levels)


def row_of(name: str, levels: np.ndarray) -> str:
    """A line of the table from (episodes, T, 2, 2) levels."""
    is_bad, is_flagged = levels[..., 0] > 0, levels[..., 1] > 0
    delays = [
        np.argmax(is_flagged[e, :, c][np.argmax(is_bad[e, :, c]) :])
        for e, _, c in np.argwhere(is_bad.any(1, keepdims=True))
        if is_flagged[e, :, c][np.argmax(is_bad[e, :, c]) :].any()
    ]
    before = ~np.maximum.accumulate(is_bad.any(2), axis=1)[..., None] & np.ones(2, bool)
    found = [is_flagged[..., c][is_bad[..., c]] for c in range(2)]
    shares = [f"{100 * f.mean():.1f}" if len(f) else "" for f in found]
    level = f"{levels[..., 1][is_bad].mean():.2f}" if is_bad.any() else ""
    oracle = f"{levels[..., 0][is_bad].mean():.2f}" if is_bad.any() else ""
    delay = f"{np.median(delays):.0f}" if delays else ""
    alarms = [f"{100 * is_flagged[..., c][before[..., c]].mean():.2f}" for c in range(2)]
    return (
        f"| {name} | {' | '.join(shares)} | {level} | {oracle} | {delay} | {' | '.join(alarms)} |"
    )


@pytest.mark.benchmark
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not gl_is_available(), reason="OpenGL is not to be had on this machine")
@pytest.mark.skipif(not STORE, reason="FORCING_STORE names no store of swap")
def test_automatic_flags_beside_the_oracles():
    buffer = ReplayBuffer.open(STORE)
    training, _ = split_episodes(buffer.num_episodes, validation_share=0.02, seed=0)
    began_s = time.process_time()
    novelty = fit_novelty(buffer, cameras=CAMERAS, episodes=training)
    assert novelty is not None
    print(f"\nfitted on {len(training)} episodes in {time.process_time() - began_s:.1f} s of CPU")
    for name, camera in novelty.cameras.items():
        print(f"{name}: limits {camera.limits.round(4)}, longest still {camera.longest_still}")
    environment = ArmEnvironment(
        Swap(), features=[*CAMERAS, "state"], action="absolute", pixels=96, rate_hz=10.0
    )
    hand = ScriptedHand(environment)
    seeds = range(FIRST_SEED, FIRST_SEED + NUM_EPISODES)
    clean, plain = [], []
    for seed in seeds:
        observations = [environment.reset(seed)]
        hand.reset(seed)
        while len(observations) < environment.max_steps:
            observations.append(environment.step(hand.act(observations[-1])).observation)
        clean.append(Replay(environment.schema, observations))
        plain.append(judged(PerturbedEnvironment(clean[-1], ()), None, novelty, seed=seed))
    began_s, pictures = time.process_time(), [clean[0].reset(0)["front"]] * 300
    for picture in pictures:
        novelty.is_strange("front", picture)
    print(f"{(time.process_time() - began_s) / len(pictures) * 1e3:.2f} ms a picture")
    print("| condition | front % | wrist % | level | oracle | delay | before, front | wrist |")
    print("|---|---|---|---|---|---|---|---|")
    print(row_of("none", np.stack(plain)), flush=True)
    for condition in conditions():
        episodes = []
        for seed, replay in zip(seeds, clean, strict=True):
            is_replayed = condition.kind in SOURCE_KINDS
            made = perturbations_of(condition, schema=environment.schema)
            world = PerturbedEnvironment(replay if is_replayed else environment, made)
            episodes.append(judged(world, None if is_replayed else hand, novelty, seed=seed))
        print(row_of(condition.name, np.stack(episodes)), flush=True)
    environment.close()
    assert np.stack(plain)[..., 1].astype(bool).mean() < 0.005
