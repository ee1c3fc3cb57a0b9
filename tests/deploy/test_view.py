"""forcing-view: who drives, at which pace, what its buttons do, and what it refuses."""

from __future__ import annotations

import re
import signal
import threading
import time
import urllib.request

import numpy as np
import pytest

from deploy.controller import Controller
from deploy.live_view import LiveView
from deploy.rehearsed_expert import RehearsedExpert
from deploy.view import LiveEpisode, Senses, ViewConfig, _Skipped, _Stopped, run
from deploy.view_panel import Buttons
from deploy.virtual_time import Sensing, run_episode
from sim.arm.environment import ArmEnvironment
from sim.experts.scripted_hand import ScriptedHand
from sim.perturbations.conditions import PerturbationConfig
from sim.perturbations.environment import PerturbedEnvironment
from sim.perturbations.kinds import perturbation
from sim.tasks.swap import Swap
from tests.deploy.planar_environment import PlanarEnvironment
from tests.deploy.processes import TINY, entry_point
from tests.deploy.test_live_view import record
from tests.deploy.tiny_policy import TinyPolicy


def lowdim_swap() -> ArmEnvironment:
    return ArmEnvironment(Swap(), features=("state",))


def test_the_rehearsed_expert_solves_the_real_world_as_it_planned():
    rehearsal, real = lowdim_swap(), lowdim_swap()
    driver = RehearsedExpert(rehearsal, ScriptedHand(rehearsal), horizon=16)
    records, subgoals = [], []

    def watch(step_record):
        records.append(step_record)
        subgoals.append(driver.subgoal(step_record.step))

    result = run_episode(real, driver, seed=4, controller=Controller(real.schema), on_step=watch)
    assert result.is_success
    assert result.statistics.cases["hold"] == 0
    executed = np.stack([r.decision.action for r in records])
    for step in (0, 50, 120):
        plan = records[step].plan
        assert plan.start_step == step
        assert plan.actions.shape == (16, 10)
        assert not plan.levels.any()
        np.testing.assert_array_equal(plan.actions, executed[step : step + 16])
    assert 1 <= len(records[-3].plan.actions) <= 16
    assert subgoals[0] == "move 1: reach"
    assert "move 3: home" in subgoals
    # where the hand went is where the expert, driving alone, would have gone
    alone = lowdim_swap()
    expert = ScriptedHand(alone)
    observation = alone.reset(4)
    expert.reset(4)
    for step_record in records[:30]:
        observation = alone.step(expert.act(observation)).observation
        np.testing.assert_array_equal(observation["state"], step_record.result.observation["state"])


def test_senses_tell_what_arrived_how_old_it_is_and_what_is_true():
    inner = PlanarEnvironment(rate_hz=20.0)
    late = perturbation("late", schema=inner.schema, sources=["front"], start=(0, 0), delay=(3, 3))
    environment = PerturbedEnvironment(inner, [late])
    senses = Senses(environment)
    environment.reset(0)
    for step in range(8):
        arrived, truth = senses.perceive(step, {})
        times = senses.captured_s()
        assert times["position"] == pytest.approx(step / 20.0)
        if step >= 3:
            assert times["front"] == pytest.approx((step - 3) / 20.0)
            assert truth["front"] > 0
            assert senses.trouble == "perturbed: front"
        assert set(arrived) <= {"position", "front"}
        environment.step(np.zeros(2))


class Page:
    """A view that keeps what it is given."""

    def __init__(self) -> None:
        self.seeds, self.steps = [], []

    def start_episode(self, seed: int) -> None:
        self.seeds.append(seed)

    def show(self, step_record, *, subgoal: str = "", trouble: str = "") -> None:
        assert trouble == ""
        self.steps.append(step_record.step)


@pytest.fixture
def live():
    """A running episode at 50 Hz: `play(num)` makes so many steps."""
    environment = PerturbedEnvironment(PlanarEnvironment())
    environment.reset(0)
    result = environment.step(np.zeros(2))
    buttons, stopped, page = Buttons(), threading.Event(), Page()
    episode = LiveEpisode(
        page, driver=TinyPolicy(), senses=Senses(environment), buttons=buttons, stopped=stopped
    )
    episode.start(11, rate_hz=50.0)

    class Live:
        def __init__(self) -> None:
            self.buttons, self.stopped, self.page = buttons, stopped, page

        def play(self, num: int) -> float:
            began_s = time.monotonic()
            for step in range(num):
                episode.on_step(record(result, step=step))
            return time.monotonic() - began_s

    return Live()


def test_an_episode_takes_the_time_that_it_would_on_a_real_arm(live):
    assert 0.38 < live.play(20) < 1.0
    assert live.page.seeds == [11]
    assert live.page.steps == list(range(20))


def test_a_pause_stands_still_and_is_not_made_up_for(live):
    live.buttons.is_paused.set()
    threading.Timer(0.5, live.buttons.is_paused.clear).start()
    assert live.play(1) > 0.45
    assert live.play(10) > 0.18


def test_next_and_stop_end_the_episode_also_from_a_pause(live):
    live.buttons.is_paused.set()
    threading.Timer(0.2, live.buttons.next_asked.set).start()
    with pytest.raises(_Skipped):
        live.play(1000)
    live.buttons.next_asked.clear()
    threading.Timer(0.2, live.stopped.set).start()
    with pytest.raises(_Stopped):
        live.play(1000)


def test_a_checkpoints_policy_may_drive(tmp_path):
    """The same way as `forcing-view checkpoint=`, without the wait."""
    from sim.tasks.pick_place import pick_place_environment
    from tests.deploy.tiny_checkpoint import tiny_policy  # torch: this test alone needs it

    environment = PerturbedEnvironment(pick_place_environment(max_steps=12), [])
    view = LiveView(environment, title="pick_place", port=0)
    senses = Senses(environment)
    levels = []

    def watch(step_record):
        view.show(step_record)
        levels.append(step_record.plan.levels.max())

    try:
        sensing = Sensing(perceive=senses.perceive, captured_s=senses.captured_s)
        result = run_episode(
            environment, tiny_policy(tmp_path), seed=0, sensing=sensing, on_step=watch
        )
    finally:
        view.close()
    assert result.num_steps == 12
    assert max(levels) > 0.5  # its plans have slots that are noise still


# --- processes ---


def test_it_runs_until_ctrl_c_and_ends_cleanly():
    with entry_point("deploy.view", "task=pick_place", "port=0", "first_seed=5") as view:
        view.wait_for("view at http://127.0.0.1:")
        time.sleep(1.0)
        view.process.send_signal(signal.SIGINT)
        assert view.wait(timeout_s=20.0) == 0
        assert not [line for line in view.lines if "Traceback" in line]


def test_misuse_ends_with_a_sentence():
    with entry_point("deploy.view", "port=0", "num_episodes=0") as view:
        assert view.wait() == 1
        assert view.lines == ["forcing-view: num_episodes is 0, expected at least 1, or null"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "task 'pick_place' has no scripted expert; give checkpoint=<folder>"),
        ({"checkpoint": "/nowhere"}, "/nowhere"),
        ({"perturbation": PerturbationConfig(kind="fog")}, "no perturbation 'fog'; have: "),
    ],
)
def test_what_cannot_be_shown_is_refused(changes, sentence):
    environment = {"_target_": "sim.tasks.pick_place.pick_place_environment", "max_steps": 3}
    config = ViewConfig(task={"name": "pick_place", "environment": environment}, port=0, **changes)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        run(config, stopped=threading.Event())


def test_a_run_over_sockets_can_be_watched():
    with (
        entry_point("deploy.serve", *TINY, "endpoint=tcp://127.0.0.1:*") as server,
        entry_point(
            "deploy.run_robot",
            "task.environment={_target_:tests.deploy.planar_environment.PlanarEnvironment}",
            f"server={server.endpoint}",
            "num_episodes=1",
            "view_port=0",
        ) as robot,
    ):
        url = robot.wait_for("view at http://127.0.0.1:").split()[-1]
        with urllib.request.urlopen(url) as reply:
            assert reply.status == 200
        assert robot.wait() == 0
        assert robot.wait_for("100000").split()[1] == "success"
