"""Push-T: the contract, equality with gym-pusht, and the human demonstrations replayed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sim.push_t import FULL_SCHEMA, PushT, _import_push_t
from teleop_data.replay_buffer import ReplayBuffer
from tests.contracts.environment_contract import EnvironmentContract

HUMAN_STORE = (
    Path(__file__).parents[2].parent / "shared" / "data" / "pusht" / "pusht_cchi_v7_replay.zarr"
)


@pytest.fixture(scope="module")
def human() -> ReplayBuffer:
    if not HUMAN_STORE.exists():
        pytest.skip(f"the human Push-T demonstrations are not at {HUMAN_STORE}")
    return ReplayBuffer.open(HUMAN_STORE)


class PushTContract(EnvironmentContract):
    def typical_action(self, rng):
        return rng.uniform(0, 512, size=2).astype(np.float32)


class TestPushTState(PushTContract):
    def make(self):
        return PushT()


class TestPushTImage(PushTContract):
    def make(self):
        return PushT(features=("img", "agent_position"))


def test_features_are_a_choice():
    environment = PushT(features=("agent_position", "state", "img"))
    observation = environment.reset(0)
    assert [f.name for f in environment.schema.observed] == ["agent_position", "state", "img"]
    np.testing.assert_array_equal(observation["agent_position"], observation["state"][:2])
    with pytest.raises(KeyError, match="no feature 'image'; have: img, state"):
        PushT(features=("image",))
    for wrong in ((), ("action", "state")):
        with pytest.raises(ValueError, match="some of img, state, agent_position"):
            PushT(features=wrong)


def test_it_is_gym_pusht_step_for_step():
    ours, theirs = PushT(), _import_push_t()(obs_type="state")
    rng = np.random.default_rng(0)
    for seed in (100_000, 7):
        expected, _ = theirs.reset(seed=seed)
        np.testing.assert_array_equal(ours.reset(seed)["state"], expected.astype(np.float32))
        for _ in range(40):
            action = rng.uniform(0, 512, size=2).astype(np.float32)
            expected, reward, success, _, info = theirs.step(action.astype(np.float64))
            result = ours.step(action)
            np.testing.assert_array_equal(result.observation["state"], expected.astype(np.float32))
            assert result.success == success
            assert result.reward == pytest.approx(reward, rel=1e-12)
            assert result.info["coverage"] == pytest.approx(info["coverage"], rel=1e-12)


def test_rewards_are_the_same_to_the_last_bit():
    # gym-pusht's own are not: they depend on where in memory the block's parts lie
    environments = [PushT() for _ in range(30)]  # all alive, so that none reuses another's memory
    rewards = []
    for environment in environments:
        environment.reset(100_000)
        rewards.append([environment.step(np.array([200.0, 300.0])).reward for _ in range(5)])
    assert all(reward == rewards[0] for reward in rewards)


def test_targets_outside_the_world_are_clipped():
    one, two = PushT(), PushT()
    one.reset(0)
    two.reset(0)
    for _ in range(5):
        far = one.step(np.array([-900.0, 2000.0]))
        edge = two.step(np.array([0.0, 512.0]))
    np.testing.assert_array_equal(far.observation["state"], edge.observation["state"])


def test_a_block_on_its_mark_is_success():
    environment = PushT()
    # the mark is at (256, 256), turned by pi / 4; the agent is out of the way
    environment.restore(np.array([60.0, 60.0, 256.0, 256.0, np.pi / 4]))
    result = environment.step(np.array([60.0, 60.0]))
    assert result.reward == 1.0
    assert result.success
    assert result.terminated
    assert result.info["coverage"] == pytest.approx(1.0)


def test_restore_gives_exactly_that_state_at_rest():
    environment = PushT(features=("img", "state"))
    state = np.array([333.0, 97.0, 222.99382, 381.59903, 3.0079994], np.float32)
    environment.reset(0)
    environment.step(np.array([500.0, 0.0]))
    first = environment.restore(state)
    np.testing.assert_array_equal(first["state"], state)
    later = environment.step(state[:2]).observation
    np.testing.assert_allclose(later["state"], state, atol=1e-4)
    np.testing.assert_array_equal(later["img"], first["img"])  # the picture showed it at once
    with pytest.raises(ValueError, match="expected \\(5,\\)"):
        environment.restore(state[:4])


def test_human_demonstrations_replay_within_a_pixel(human: ReplayBuffer):
    environment = PushT()
    for index in (0, 50, 186, 205):  # in 50 and 186 agent and block overlap at the start
        steps = slice(int(human.episode_starts[index]), int(human.episode_ends[index]))
        states, actions = human["state"][steps], human["action"][steps]
        observation = environment.restore(states[0])
        np.testing.assert_array_equal(observation["state"], states[0])
        for step, action in enumerate(actions[:-1]):
            replayed = environment.step(action).observation["state"]
            away = np.abs(replayed - states[step + 1])
            assert away[:4].max() < 1.0, f"episode {index}, step {step}: {away}"
            assert min(away[4], 2 * np.pi - away[4]) < 0.02


def test_features_and_pictures_are_those_of_the_human_store(human: ReplayBuffer):
    for name in ("img", "state", "action"):
        stored, ours = human.schema[name], FULL_SCHEMA[name]
        assert (stored.shape, stored.dtype, stored.role, stored.unit) == (
            ours.shape,
            ours.dtype,
            ours.role,
            ours.unit,
        )
    environment = PushT(features=("img",))
    for step in (100, 5_000, 20_000):
        picture = environment.restore(human["state"][step])["img"]
        recorded = human["img"][step]
        # sub-pixel rounding of the recorded state leaves a few edge pixels different
        assert np.mean(picture != recorded) < 0.02
        assert np.abs(picture.astype(int) - recorded).mean() < 0.5


def test_states_alone_are_never_drawn(monkeypatch: pytest.MonkeyPatch):
    environment = PushT()

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("drew a picture that nobody observes")

    monkeypatch.setattr(environment._world, "_draw", refuse)
    environment.reset(0)
    environment.step(np.array([100.0, 100.0]))


def test_it_is_silent_opens_no_window_and_leaves_the_process_environment_alone():
    code = (
        "import os; before = dict(os.environ)\n"
        "from sim.push_t import PushT\n"
        "world = PushT(features=('img',)); world.reset(0); world.render(); world.close()\n"
        "import pygame\n"
        "assert not pygame.display.get_init(), 'a display was opened'\n"
        "print(sorted(set(os.environ) - set(before) - {'KMP_INIT_AT_FORK'}))\n"
    )
    variables = {k: v for k, v in os.environ.items() if k != "PYGAME_HIDE_SUPPORT_PROMPT"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=variables,
        cwd=Path(__file__).parents[2],
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "pygame" not in done.stdout
    assert "PYGAME" not in done.stdout
