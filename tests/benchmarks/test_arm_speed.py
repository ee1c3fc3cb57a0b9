"""Speed of the arm, one core: control steps per second with two 96x96 cameras, beside robosuite.

    pytest -m benchmark tests/benchmarks/test_arm_speed.py -s

robosuite's Lift is measured in the same process, with as many pictures of the same size, in CPU
time, which other work on the machine changes little. Its control step is 50 ms of simulated time,
ours 100 ms, so both ratios are given.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable

import numpy as np
import pytest

from sim.arm.environment import ArmEnvironment
from sim.experts.scripted_hand import ScriptedHand
from sim.rendering.camera_renderer import gl_is_available
from sim.tasks.swap import Swap

PIXELS, NUM_STEPS = 96, 150
PEER_RATE_HZ, NUM_PEER_STEPS = 20.0, 30


def seconds_a_step(step: Callable[[], object], *, num_steps: int) -> tuple[float, float]:
    """CPU and wall seconds of one call, after a few for warming up."""
    for _ in range(5):
        step()
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    for _ in range(num_steps):
        step()
    return (
        (time.process_time() - cpu_s) / num_steps,
        (time.perf_counter() - wall_s) / num_steps,
    )


def peer_step() -> Callable[[], object]:
    """One control step of robosuite's Lift with two cameras."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import robosuite

        logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
        lift = robosuite.make(
            "Lift",
            robots="Panda",
            has_renderer=False,
            has_offscreen_renderer=True,
            use_camera_obs=True,
            camera_names=["frontview", "robot0_eye_in_hand"],
            camera_heights=PIXELS,
            camera_widths=PIXELS,
            control_freq=PEER_RATE_HZ,
            ignore_done=True,
        )
        lift.reset()
    action = np.zeros(lift.action_dim)
    return lambda: lift.step(action)


@pytest.mark.benchmark
@pytest.mark.timeout(600)
@pytest.mark.skipif(not gl_is_available(), reason="OpenGL is not to be had on this machine")
def test_swap_with_two_cameras_is_fast_beside_robosuite():
    environment = ArmEnvironment(Swap(), pixels=PIXELS)
    expert = ScriptedHand(environment)
    observation = environment.reset(0)
    expert.reset(0)

    def step() -> None:
        nonlocal observation
        observation = environment.step(expert.act(observation)).observation

    cpu_s, wall_s = seconds_a_step(step, num_steps=NUM_STEPS)
    peer_cpu_s, peer_wall_s = seconds_a_step(peer_step(), num_steps=NUM_PEER_STEPS)
    ratio = peer_cpu_s / cpu_s
    print(
        f"\nswap, two {PIXELS}x{PIXELS} cameras, expert included: {1 / cpu_s:.0f} control steps a "
        f"CPU second ({1 / wall_s:.0f} by the wall)\n"
        f"robosuite Lift, the same pictures: {1 / peer_cpu_s:.1f} ({1 / peer_wall_s:.1f})\n"
        f"ratio {ratio:.1f} a control step, "
        f"{ratio * PEER_RATE_HZ / environment.schema.rate_hz:.1f} a simulated second"
    )
    environment.close()
    assert 1 / cpu_s >= 150
    assert ratio > 10
