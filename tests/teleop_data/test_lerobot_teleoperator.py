"""LeRobot's robots and teleoperators as ours: names, order, pace, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teleop_data.clock import ManualClock
from teleop_data.lerobot_devices import make_device, scalar_names
from teleop_data.lerobot_robot import LerobotRobot
from teleop_data.recorder import Recorder, record_episode, recording_schema
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.teleoperators.lerobot_teleoperator import LerobotTeleoperator
from tests.contracts.environment_contract import EnvironmentContract
from tests.contracts.teleoperator_contract import TeleoperatorContract
from tests.teleop_data.lerobot_fakes import JOINTS, FakeArm, fake_arm, fake_leader


def make_environment(folder: Path, **options: Any) -> LerobotRobot:
    options = {"rate_hz": 20.0, "max_steps": 30, "clock": ManualClock(), **options}
    return LerobotRobot(fake_arm(folder), **options)


@pytest.fixture
def environment(tmp_path: Path) -> LerobotRobot:
    return make_environment(tmp_path)


def arm_of(environment: LerobotRobot) -> FakeArm:
    assert isinstance(environment.robot, FakeArm)
    return environment.robot


class TestLerobotTeleoperator(TeleoperatorContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make(self):
        environment = make_environment(self.folder)
        return environment, LerobotTeleoperator(environment, fake_leader(self.folder))


class TestWhatOfTheContractARealRobotCanKeep:
    """A robot has no seed, so the tests of seeds are not for it; the rest is the contract's own."""

    suite = EnvironmentContract()

    @pytest.fixture(autouse=True)
    def _actions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rng = np.random.default_rng(0)
        actions = [rng.uniform(-50, 50, 3).astype(np.float32) for _ in range(12)]
        monkeypatch.setattr(self.suite, "actions", lambda: actions, raising=False)
        monkeypatch.setattr(
            self.suite, "typical_action", lambda rng: rng.uniform(-50, 50, 3), raising=False
        )

    @pytest.mark.parametrize(
        "name",
        [
            "test_observations_follow_the_schema",
            "test_schema_has_one_action_and_a_rate",
            "test_actions_are_not_changed",
            "test_float32_and_float64_actions_are_accepted",
            "test_step_before_reset_is_refused",
            "test_rewards_lie_in_the_unit_interval",
            "test_episodes_end_by_max_steps",
        ],
    )
    def test_contract(self, environment: LerobotRobot, name: str) -> None:
        getattr(self.suite, name)(environment)

    def test_steps_after_close_are_refused(self, environment: LerobotRobot) -> None:
        environment.reset(0)
        environment.close()
        assert not environment.robot.is_connected
        with pytest.raises(RuntimeError, match="reset"):
            environment.step(np.zeros(3, np.float32))

    @pytest.mark.parametrize("bad", [np.zeros(2, np.float32), np.full(3, np.nan, np.float32)])
    def test_bad_actions_are_not_sent(self, environment: LerobotRobot, bad: np.ndarray) -> None:
        environment.reset(0)
        with pytest.raises(ValueError, match=r"shape|finite"):
            environment.step(bad)
        assert arm_of(environment).sent == []


def test_numbers_keep_their_names_whatever_the_order_of_the_reply(environment: LerobotRobot):
    arm_of(environment).positions = dict(zip(JOINTS, (10.0, 20.0, 30.0), strict=True))
    observation = environment.reset(0)
    np.testing.assert_array_equal(observation["state"], [10, 20, 30])
    assert (observation["front"] == 20).all()
    result = environment.step(np.array([1, 2, 3], np.float32))
    assert arm_of(environment).sent == [dict(zip(JOINTS, (1.0, 2.0, 3.0), strict=True))]
    np.testing.assert_array_equal(result.observation["state"], [5.5, 11.0, 16.5])


def test_what_was_really_sent_is_told(environment: LerobotRobot):
    environment.reset(0)
    result = environment.step(np.array([200, -5, 0], np.float32))
    np.testing.assert_array_equal(result.info["sent_action"], [90, -5, 0])


def test_what_the_schema_cannot_hold_is_named(environment: LerobotRobot):
    assert environment.schema.names == ("front", "state", "action")
    assert environment.left_out == ("depth",)


def test_steps_last_one_period_on_absolute_deadlines(tmp_path: Path):
    clock = ManualClock(start_s=7.0)
    environment = make_environment(tmp_path, clock=clock)
    environment.reset(0)
    for step in range(1, 4):
        clock.advance(0.02)  # a teleoperator that takes its time
        environment.step(np.zeros(3, np.float32))
        assert clock.now() == pytest.approx(7.0 + step / 20.0)


def test_an_observation_is_done_at_the_deadline_and_says_when_it_was_asked_for(tmp_path: Path):
    clock = ManualClock()
    environment = make_environment(tmp_path, clock=clock)
    read = arm_of(environment).get_observation

    def slow_read() -> dict[str, Any]:
        clock.advance(0.01)
        return read()

    arm_of(environment).get_observation = slow_read
    environment.reset(0)
    for step in range(1, 4):
        environment.step(np.zeros(3, np.float32))
        assert clock.now() == pytest.approx(0.01 + step / 20.0)
        assert environment.captured_s()["front"] == pytest.approx(step / 20.0)


def test_a_late_step_is_followed_by_steps_on_the_old_grid(tmp_path: Path):
    clock = ManualClock()
    environment = make_environment(tmp_path, clock=clock)
    environment.reset(0)
    for pause_s, expected_s in ((0.0, 0.05), (0.12, 0.20), (0.0, 0.25)):
        clock.advance(pause_s)
        environment.step(np.zeros(3, np.float32))
        assert clock.now() == pytest.approx(expected_s)


def test_it_is_connected_once(environment: LerobotRobot):
    assert arm_of(environment).num_connects == 0
    environment.reset(0)
    environment.reset(1)
    assert arm_of(environment).num_connects == 1


def test_an_unplugged_robot_is_an_error_at_once(environment: LerobotRobot):
    environment.reset(0)
    arm_of(environment).disconnect()
    with pytest.raises(ConnectionError, match="unplugged"):
        environment.step(np.zeros(3, np.float32))


def test_a_leader_drives_an_arm_and_is_recorded(tmp_path: Path, environment: LerobotRobot):
    teleoperator = LerobotTeleoperator(environment, fake_leader(tmp_path))
    assert teleoperator.names == JOINTS  # the arm's order, not the leader's
    schema = recording_schema(environment, teleoperator)
    buffer = ReplayBuffer.create(tmp_path / "store.zarr", schema)
    record_episode(environment, teleoperator, seed=0, recorder=Recorder(buffer), max_steps=5)
    episode = buffer.episode(0)
    np.testing.assert_array_equal(episode["action"], np.tile(np.float32([1, 2, 3]), (5, 1)))
    np.testing.assert_allclose(episode["state"][:3, 1], [0, 1, 1.5])
    facts = buffer.episode_attributes[0]
    assert facts["state_names"] == list(JOINTS)
    assert facts["robot"] == "forcing_fake_arm"
    assert facts["left_out"] == ["depth"]


def test_a_processor_makes_the_action_of_values_and_observation(
    tmp_path: Path, environment: LerobotRobot
):
    def relative(given: tuple[Any, Any]) -> dict[str, float]:
        values, observation = given
        return {name: observation[name] + values[name] for name in JOINTS}

    teleoperator = LerobotTeleoperator(environment, fake_leader(tmp_path), processor=relative)
    observation = environment.reset(0)
    environment.step(np.array([20, 20, 20], np.float32))
    np.testing.assert_array_equal(teleoperator.act(observation), [11, 12, 13])


def test_names_that_do_not_fit_are_refused(tmp_path: Path, environment: LerobotRobot):
    with pytest.raises(ValueError, match="2 names: elbow.pos, gripper.pos"):
        LerobotTeleoperator(environment, fake_leader(tmp_path), names=("elbow.pos", "gripper.pos"))
    with pytest.raises(KeyError, match="gives no .*wrist.pos"):
        LerobotTeleoperator(
            environment, fake_leader(tmp_path), names=("wrist.pos", "elbow.pos", "gripper.pos")
        )


def test_values_that_are_not_finite_never_become_actions(tmp_path: Path, environment: LerobotRobot):
    leader = fake_leader(tmp_path)
    teleoperator = LerobotTeleoperator(environment, leader)
    leader.positions["elbow.pos"] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        teleoperator.act(environment.reset(0))


def test_close_disconnects(tmp_path: Path, environment: LerobotRobot):
    leader = fake_leader(tmp_path)
    teleoperator = LerobotTeleoperator(environment, leader)
    assert leader.is_connected
    teleoperator.close()
    assert not leader.is_connected


def test_names_with_an_index_are_put_in_its_order():
    gamepad = {"dtype": "float32", "shape": (2,), "names": {"gripper": 1, "delta_x": 0}}
    assert scalar_names(gamepad) == ("delta_x", "gripper")


def test_lerobots_own_devices_are_made_of_a_description(tmp_path: Path):
    folder = str(tmp_path)
    description = {"type": "lekiwi_client", "remote_ip": "127.0.0.1", "calibration_dir": folder}
    robot = LerobotRobot(description, rate_hz=30.0)
    assert robot.schema["front"].shape == (480, 640, 3)
    assert robot.schema.action.shape == robot.schema["state"].shape == (9,)
    assert robot.action_names[0] == "arm_shoulder_pan.pos"
    gamepad = make_device("teleoperator", {"type": "gamepad", "calibration_dir": folder})
    assert scalar_names(gamepad.action_features) == ("delta_x", "delta_y", "delta_z", "gripper")


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"type": "so101_follower", "prot": "/dev/null"}, "prot"),
        ({"type": "so_101"}, "no robot of type 'so_101'; have: .*so101_follower"),
    ],
)
def test_descriptions_that_lerobot_does_not_know_are_refused(
    description: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
):
    import lerobot.utils.import_utils as plugins

    monkeypatch.setattr(plugins, "register_third_party_plugins", lambda: None)
    with pytest.raises(ValueError, match=message):
        make_device("robot", description)
