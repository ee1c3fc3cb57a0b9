"""Every arm task's demonstrator, with the noise of the demonstrations: 98 of 100 at least.

pytest -m slow tests/sim/test_experts_succeed.py -s
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from hydra.utils import instantiate

from sim.task_descriptions import arm_task_names, describe_task
from teleop_data.recorder import record_episode

NUM_EPISODES = 100


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", arm_task_names())
def test_the_demonstrator_succeeds(name: str):
    description = describe_task(name)
    environment = instantiate(description.environment, features=["state", "objects"])
    expert = instantiate(description.expert, environment)
    began_s = time.process_time()
    episodes = [record_episode(environment, expert, seed=seed) for seed in range(NUM_EPISODES)]
    cpu_s = (time.process_time() - began_s) / NUM_EPISODES
    steps = [episode.num_steps for episode in episodes]
    num_successes = sum(episode.success for episode in episodes)
    print(
        f"\n{name}: {num_successes} of {NUM_EPISODES}, steps median {np.median(steps):.0f} "
        f"[{min(steps)}, {max(steps)}], {cpu_s:.2f} CPU s an episode without pictures"
    )
    environment.close()
    assert num_successes >= 98
