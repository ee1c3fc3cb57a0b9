"""The page without a pad: a LeRobot leader drives a LeRobot arm, forcing-record records it, and the
operator's buttons are on the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from teleop_data.operator import Command, Status
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.teleoperators.browser import BrowserOperator
from tests.deploy.processes import entry_point
from tests.teleop_data.browser_client import open_page

FAKES = "tests.teleop_data.lerobot_fakes"


def test_a_leader_arm_is_recorded_from_the_page(tmp_path: Path):
    store = tmp_path / "by_hand.zarr"
    for group, what in (("task", "environment"), ("teleoperator", "teleoperator")):
        node = f"{{_target_: {FAKES}.fake_{what}, folder: {tmp_path}}}"
        text = f"name: mine\nenvironment: {node}\n" if group == "task" else f"{node}\n"
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_text(text)
    with entry_point(
        "teleop_data.record",
        f"--config-dir={tmp_path}",
        f"output={store}",
        "task=mine",
        "teleoperator=mine",
        "+operator=browser",
        "operator.port=0",
        "+operator.labels=[good]",
        "num_episodes=2",
    ) as session:
        page = open_page(session.wait_for("record at ").split()[-1])
        with page.socket:
            for number in range(2):
                page.read_until(
                    lambda words, n=number: (
                        words["phase"] == "waiting" and f"{n} kept" == words["kept"]
                    )
                )
                page.send("start")
                page.read_until(lambda words: words["progress"].endswith("step 8"))
                page.send("label", text="good")
                page.send("keep")
            assert "front" in page.pictures
        assert session.wait() == 0, session.lines
    buffer = ReplayBuffer.open(store)
    assert buffer.num_episodes == 2
    for index, facts in enumerate(buffer.episode_attributes):
        episode = buffer.episode(index)
        np.testing.assert_array_equal(np.unique(episode["action"], axis=0), [[1, 2, 3]])
        assert facts["robot"] == "forcing_fake_arm"
        assert facts["action_names"] == ["shoulder.pos", "elbow.pos", "gripper.pos"]
        assert [label["text"] for label in facts["labels"]] == ["good"]
        assert (np.diff(episode["captured_s_front"]) > 0.01).all()


def test_the_page_opens_when_there_is_something_to_show():
    operator = BrowserOperator(port=0)
    operator.tell(Status(phase="waiting", seed=0, num_kept=0))
    assert operator.poll() is None
    assert operator._server is None
    observation = {"top": np.zeros((8, 8, 3), np.uint8), "state": np.zeros(2, np.float32)}
    operator.tell(Status(phase="waiting", seed=0, num_kept=0, observation=observation))
    assert operator._server is not None
    page = open_page(operator._server.url)
    with page.socket:
        page.read_until(lambda words: words["is_driver"])
        assert list(page.pictures) == ["top"]
        page.send("start")
        page.read()
        page.read()  # came after what was "seen" before, which came after "start"
        assert operator.poll() == Command(kind="start")
    operator.close()


def test_an_operator_that_never_opened_closes():
    BrowserOperator(port=0).close()
