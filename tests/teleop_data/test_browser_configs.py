"""The YAMLs of who drives: each makes what it names, for the tasks that it names."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import hydra
import pytest
from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

import teleop_data
from teleop_data.lerobot_robot import LerobotRobot
from teleop_data.record import RecordConfig
from teleop_data.teleoperators.browser import BrowserOperator, BrowserTeleoperator

CONFIGS = Path(next(iter(teleop_data.__path__))) / "configs"


def compose(*overrides: str) -> RecordConfig:
    """The config that `forcing-record` would run with."""
    ConfigStore.instance().store(name="record_schema", node=RecordConfig)
    with hydra.initialize_config_dir(str(CONFIGS), version_base=None):
        config = hydra.compose("record", ["output=nowhere", *overrides])
    return cast(RecordConfig, OmegaConf.to_object(config))


@pytest.mark.parametrize(
    ("task", "teleoperator"),
    [
        ("pick_place", "browser_planar"),
        ("push_t_image", "browser_push_t"),
        ("push", "browser_arm"),
        ("arm_pick_place", "browser_arm"),
    ],
)
def test_a_page_drives_the_tasks_it_is_for(task: str, teleoperator: str):
    config = compose(f"task={task}", f"teleoperator={teleoperator}", "teleoperator.port=0")
    environment = instantiate(config.task["environment"])
    driver = instantiate(config.teleoperator, environment)
    assert isinstance(driver, BrowserTeleoperator)
    try:
        observation = environment.reset(0)
        driver.reset(0)
        before = driver._mapping.target_of(observation)
        for _ in range(3):  # nobody drives: the hand stays where it is
            result = environment.step(driver.act(observation))
        after = driver._mapping.target_of(result.observation)
        reach = driver._mapping.reach
        assert abs(after.x - before.x) < 0.01 * (reach.high.x - reach.low.x)
        assert reach.clip(before) == before
    finally:
        driver.close()
        environment.close()


def test_a_page_that_does_not_fit_the_task_is_refused():
    config = compose("task=push", "teleoperator=browser_planar", "teleoperator.port=0")
    environment = instantiate(config.task["environment"])
    with pytest.raises(InstantiationException, match="choose a mapping that fits"):
        instantiate(config.teleoperator, environment)
    environment.close()


def test_the_operators_page_is_made():
    config = compose("+operator=browser", "operator.port=0", "+operator.labels=[good]")
    assert config.operator is not None
    assert isinstance(instantiate(config.operator), BrowserOperator)


def test_lerobots_devices_are_made_of_their_yaml(tmp_path: Path):
    config = compose(
        "task=lerobot",
        "task.environment.robot.type=lekiwi_client",
        "+task.environment.robot.remote_ip=127.0.0.1",
        f"+task.environment.robot.calibration_dir={tmp_path}",
        "teleoperator=lerobot",
        "teleoperator.device.type=nonsense",
    )
    environment = instantiate(config.task["environment"])
    assert isinstance(environment, LerobotRobot)
    assert environment.schema.action.shape == (9,)
    with pytest.raises(InstantiationException, match="no teleoperator of type 'nonsense'"):
        instantiate(config.teleoperator, environment)
