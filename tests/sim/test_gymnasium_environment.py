"""The arm's tasks through gymnasium: its own checker, vectors, seeds, and cheap registration."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import RescaleAction

from sim.arm.actions import ActionMode
from sim.arm.environment import ArmEnvironment
from sim.experts.scripted_hand import ScriptedHand
from sim.gymnasium_environment import (
    GymnasiumEnvironment,
    action_space,
    make_arm_task,
    observation_space,
)
from sim.gymnasium_registration import gymnasium_id, register_arm_tasks
from sim.task_descriptions import arm_task_names
from sim.tasks.swap import Swap
from teleop_data.schema import Feature

SMALL: dict[str, Any] = {"pixels": 32, "render_pixels": 64}
LOW_DIMENSIONAL: dict[str, Any] = {"features": ["state", "joints", "objects"]}
RESCALE = "For Box action spaces, we recommend using a symmetric and normalized space"


@pytest.fixture
def environment() -> Iterator[gymnasium.Env]:
    environment = gymnasium.make(gymnasium_id("arm_pick_place"), **LOW_DIMENSIONAL)
    yield environment
    environment.close()


@pytest.mark.parametrize("task", arm_task_names())
def test_every_arm_task_passes_gymnasiums_checks(task: str):
    environment = gymnasium.make(
        gymnasium_id(task), render_mode="rgb_array", action="relative", **SMALL
    )
    check_env(environment.unwrapped)  # any warning is an error here
    environment.close()


@pytest.mark.parametrize("action", ["absolute", "joints"])
def test_other_actions_pass_but_for_gymnasiums_taste_in_scales(action: ActionMode):
    options = {**LOW_DIMENSIONAL, "action": action}
    environment = gymnasium.make(gymnasium_id("swap"), **options)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        check_env(environment.unwrapped, skip_render_check=True)
    assert [RESCALE in str(warning.message) for warning in warned] == [True]
    environment.close()


def test_bounds_are_where_actions_stop_making_a_difference():
    assert action_space("absolute").high[:3] == pytest.approx([0.8, 0.45, 0.6])
    assert action_space("relative").high[:3] == pytest.approx([0.6, 0.9, 0.595])
    for action in ("absolute", "relative"):
        environment = ArmEnvironment(Swap(), features=("state",), action=action)
        space = action_space(action)
        ends = []
        for beyond in (1.0, 3.0):
            environment.reset(0)
            target = space.high.astype(np.float64).copy()
            target[3:9] = [1, 0, 0, 0, 1, 0] if action == "relative" else [0, 1, 0, 1, 0, 0]
            target[:3] *= beyond
            target[9] *= beyond
            ends.append(environment.step(target).observation["state"])
        np.testing.assert_allclose(*ends, atol=1e-6)


def test_observations_lie_in_their_space_throughout_wild_episodes():
    for task in ("swap", "search"):
        features = ["state", "joints", "objects", "oracle"]
        environment = gymnasium.make(gymnasium_id(task), features=features)
        environment.action_space.seed(0)
        observation, _ = environment.reset(seed=0)
        for _ in range(60):
            assert observation in environment.observation_space
            observation, *_ = environment.step(environment.action_space.sample())
        environment.close()


def test_a_seeds_episode_is_the_one_it_determines_everywhere(environment: gymnasium.Env):
    ours = environment.unwrapped
    assert isinstance(ours, GymnasiumEnvironment)
    first, info = environment.reset(seed=7)
    assert info == {"seed": 7, "success": False}
    other = make_arm_task(name="arm_pick_place", **LOW_DIMENSIONAL)
    theirs = other.environment.reset(7)
    for name, value in first.items():
        np.testing.assert_array_equal(value, theirs[name])


def test_without_a_seed_one_is_drawn_and_told(environment: gymnasium.Env):
    environment.reset(seed=3)
    drawn = [environment.reset()[1]["seed"] for _ in range(3)]
    assert len(set(drawn)) == 3
    environment.reset(seed=3)
    assert [environment.reset()[1]["seed"] for _ in range(3)] == drawn
    observation, info = environment.reset()
    again, _ = environment.reset(seed=info["seed"])
    np.testing.assert_array_equal(observation["objects"], again["objects"])


def test_success_terminates_and_the_end_truncates():
    adapted = make_arm_task(name="arm_pick_place", features=["state"])
    arm = adapted.environment
    assert isinstance(arm, ArmEnvironment)
    expert = ScriptedHand(arm)
    observation, _ = adapted.reset(seed=0)
    expert.reset(0)
    terminated = truncated = False
    info: dict[str, Any] = {}
    while not (terminated or truncated):
        observation, reward, terminated, truncated, info = adapted.step(expert.act(observation))
    assert (terminated, truncated, info["success"], reward) == (True, False, True, 1.0)

    observation, _ = adapted.reset(seed=0)
    ends = [adapted.step(observation["state"])[2:] for _ in range(arm.max_steps)]
    assert ends[-1] == (False, True, {"success": False})
    assert not any(truncated for _, truncated, _ in ends[:-1])


def test_options_of_the_environment_and_of_the_task():
    options = {"features": ["state"], "rate_hz": 20.0, "task": {"duration_s": 5.0}}
    environment = make_arm_task(name="swap", **options)
    assert environment.metadata["render_fps"] == 20.0
    assert list(environment.observation_space.spaces) == ["state"]
    assert environment.environment.max_steps == 100
    assert GymnasiumEnvironment.metadata["render_fps"] == 10


def test_what_cannot_be_is_refused(environment: gymnasium.Env):
    with pytest.raises(ValueError, match="no arm task 'pick_place'; have: arm_pick_place"):
        make_arm_task(name="pick_place")
    with pytest.raises(ValueError, match="render_mode is 'human', expected 'rgb_array'"):
        make_arm_task(name="swap", render_mode="human", **LOW_DIMENSIONAL)
    with pytest.raises(ValueError, match=r"got options \['start'\]; there are none"):
        environment.reset(options={"start": 1})
    with pytest.raises(KeyError, match="no range of feature 'force'; have: state, joints"):
        observation_space(Feature(name="force", shape=(3,)))


def test_pictures_only_with_a_render_mode():
    silent = make_arm_task(name="swap", **LOW_DIMENSIONAL)
    silent.reset(seed=0)
    assert silent.render() is None
    loud = make_arm_task(name="swap", render_mode="rgb_array", **SMALL)
    loud.reset(seed=0)
    picture = loud.render()
    assert picture is not None
    assert picture.shape == (64, 64, 3)
    loud.close()


def test_vectors():
    id_ = gymnasium_id("arm_pick_place")
    vector = SyncVectorEnv([lambda: gymnasium.make(id_, **LOW_DIMENSIONAL)] * 2)
    observations, infos = vector.reset(seed=[4, 5])
    assert observations["objects"].shape == (2, 18)
    np.testing.assert_array_equal(infos["seed"], [4, 5])
    stepped, rewards, *_ = vector.step(observations["state"])
    alone = gymnasium.make(id_, **LOW_DIMENSIONAL)
    start, _ = alone.reset(seed=5)
    np.testing.assert_array_equal(start["objects"], observations["objects"][1])
    single, reward, *_ = alone.step(start["state"])
    np.testing.assert_array_equal(single["state"], stepped["state"][1])
    assert rewards[1] == pytest.approx(reward)
    alone.close()
    vector.close()


def test_scaled_actions_are_gymnasiums_own_business(environment: gymnasium.Env):
    scaled = RescaleAction(environment, np.float32(-1), np.float32(1))
    scaled.reset(seed=0)
    observation, *_ = scaled.step(np.zeros(10, np.float32) + [0, 0, 0, 0, 1, 0, 1, 0, 0, 0])
    assert np.isfinite(observation["state"]).all()


# --- registration ---


def test_there_is_an_id_for_every_arm_task():
    assert gymnasium_id("moving_target") == "forcing/MovingTarget-v0"
    assert {gymnasium_id(task) for task in arm_task_names()} == {
        name for name in gymnasium.registry if name.startswith("forcing/")
    }
    register_arm_tasks()  # again: gymnasium would warn about an id that is overridden


def run_alone(code: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    return answer.stdout.strip()


def test_registering_imports_nothing_that_simulates():
    code = "import sys, sim.gymnasium_registration as _; print('mujoco' in sys.modules)"
    assert run_alone(code) == "False"


def test_a_module_before_the_id_is_all_it_takes():
    code = """
import gymnasium
make = gymnasium.make("sim.gymnasium_registration:forcing/Swap-v0", features=["state"])
print(make.reset(seed=0)[0]["state"].shape)
"""
    assert run_alone(code) == "(10,)"
