"""The page's server: what is in the scene and the panel, and that it never holds up the loop."""

from __future__ import annotations

import socket
import sys
import threading
import time
import urllib.request

import numpy as np
import pytest

from deploy.arm_scene import ArmScene
from deploy.controller import Decision
from deploy.episode import StepRecord
from deploy.film_frame import CLEAN, NOISE
from deploy.live_view import LiveView, remaining_slots
from deploy.plan_waypoints import level_colors, plan_positions
from deploy.view_panel import PICTURE_SIDE, Buttons, Words, camera_row, plan_html, words_html
from policy.interface import Plan
from sim.arm.actions import pointing_down
from sim.arm.environment import ArmEnvironment
from sim.arm.inverse_kinematics import HOME_RAD, InverseKinematics
from sim.tasks.swap import Swap
from teleop_data.environment import StepResult
from tests.deploy.planar_environment import PlanarEnvironment
from tests.deploy.test_robot_side import imported


@pytest.fixture(scope="module")
def arm():
    environment = ArmEnvironment(Swap(), features=("state",))
    environment.reset(0)
    yield environment
    environment.close()


@pytest.fixture
def view(arm):
    view = LiveView(arm, title="swap", port=0, visuals="fast", buttons=Buttons())
    yield view
    view.close()


def record(result: StepResult, *, step: int = 0, plan: Plan | None = None, case="newest"):
    """A step of somebody's control loop."""
    decision = Decision(step=step, action=np.zeros(10), case=case, slot=None, interventions=())
    return StepRecord(
        step=step,
        observation=result.observation,
        plan=plan,
        source_levels={},
        decision=decision,
        result=result,
    )


def rising_plan(arm: ArmEnvironment, *, start_step: int = 0) -> Plan:
    """Eight way-points on a line sideways from the hand, two of them decided, the last noise."""
    actions = np.tile(arm.physics.hand.to_vector(), (8, 1))
    actions[:, 1] -= 0.03 * np.arange(8)
    return Plan(
        start_step=start_step,
        actions=actions.astype(np.float32),
        levels=np.clip((np.arange(8, dtype=np.float32) - 1) / 6, 0, 1),
        network_calls=1,
    )


def wait_until(is_true, *, timeout_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.01)


# --- what is shown ---


def test_the_scene_follows_the_world(view, arm):
    scene = view._server.scene
    for seed in (1, 2):
        arm.reset(seed)
        away = arm.physics.hand.to_vector()
        away[:3] += (0.03, 0.04, 0.05)
        result = arm.step(away)
        apple = scene.get_handle_by_name("/world/apple")
        view.show(record(result))
        wait_until(lambda: np.allclose(apple.position, arm.physics.position("apple"), atol=1e-4))  # noqa: B023
        for name in ("link3", "hand_leftfinger", "orange"):
            body, node = arm.physics.data.body(name), scene.get_handle_by_name(f"/world/{name}")
            np.testing.assert_allclose(node.position, body.xpos, atol=1e-4)
            np.testing.assert_allclose(node.wxyz, body.xquat, atol=1e-4)
    # every link has a surface, and so have things
    for name in (*(f"link{i}" for i in range(8)), "hand_rightfinger", "apple", "world"):
        assert scene._children_from_node_name[f"/world/{name}"], name


def test_hidden_bodies_are_seen_only_while_they_are_there_and_colours_change(view, arm):
    scene = view._server.scene
    seen = {
        name: scene.get_handle_by_name(f"/world/{name}") for name in ("distractor0", "occluder")
    }
    result = arm.step(arm.physics.hand.to_vector())
    assert not any(node.visible for node in seen.values())
    disturbances = arm.physics.disturbances
    disturbances.show_distractor(0, position=np.array([0.5, 0.1, 0.0]), yaw=0.0)
    disturbances.show_occluder("front", offset=np.zeros(2), share=0.5)
    disturbances.set_table_color(np.array([0.0, 1.0, 0.0]))
    view.show(record(result))
    wait_until(lambda: all(node.visible for node in seen.values()))
    table = scene.get_handle_by_name(f"/world/world/thing{arm.physics.model.geom('table').id}")
    assert tuple(table.color) == (0, 255, 0)
    disturbances.reset()
    view.show(record(result))
    wait_until(lambda: not any(node.visible for node in seen.values()))


def test_the_plan_is_a_line_of_dots_from_the_next_step_on(view, arm):
    scene = view._server.scene
    dots, line = (scene.get_handle_by_name(f"/plan/{name}") for name in ("dots", "line"))
    assert not dots.visible
    arm.reset(5)
    plan = rising_plan(arm)
    result = arm.step(plan.actions[0])
    view.start_episode(5)
    view.show(record(result, step=0, plan=plan))
    wait_until(lambda: dots.visible)
    np.testing.assert_allclose(dots.points, plan.actions[1:, :3], atol=1e-6)
    np.testing.assert_array_equal(dots.colors, level_colors(plan.levels[1:]))
    np.testing.assert_allclose(line.points[0, 0], arm.physics.tcp_position, atol=1e-5)
    np.testing.assert_allclose(line.points[:, 1], plan.actions[1:, :3], atol=1e-6)
    # no newer plan: the same one goes on, until it has run out
    view.show(record(result, step=4))
    wait_until(lambda: len(dots.points) == 3)
    view.show(record(result, step=7))
    wait_until(lambda: not dots.visible)
    # and a new episode has none
    view.show(record(result, step=0, plan=plan))
    wait_until(lambda: dots.visible)
    view.start_episode(6)
    view.show(record(result, step=0))
    wait_until(lambda: not dots.visible)


def test_a_robot_that_is_no_arm_has_pictures_and_words():
    environment = PlanarEnvironment()
    environment.reset(0)
    result = environment.step(np.zeros(2))
    view = LiveView(environment, title="<planar>", port=0)
    try:
        view.start_episode(7)
        view.show(record(result, step=3, case="hold"))
        wait_until(lambda: "episode 7, step 4 of 40" in view._panel._words.content)
        assert "&lt;planar&gt;" in view._panel._words.content
        assert "holding" in view._panel._words.content
        shown = view._panel._pictures.image
        assert shown.shape == (PICTURE_SIDE, PICTURE_SIDE, 3)
        np.testing.assert_array_equal(shown[::6, ::6], result.observation["front"])
        assert view._server.scene.get_handle_by_name("/plan/dots") is None
    finally:
        view.close()


# --- way-points, colours, words ---


def test_waypoints_of_every_kind_of_action_are_the_same_places():
    kinematics = InverseKinematics()
    hand = np.array([0.45, 0.0, 0.2])
    places = hand + np.cumsum(np.full((5, 3), [0.01, -0.02, 0.01]), axis=0)
    kind = {"hand": hand, "tcp_of": lambda joints: kinematics.pose(joints)[0]}
    absolute = np.hstack([places, np.zeros((5, 7))])
    np.testing.assert_allclose(plan_positions(absolute, mode="absolute", **kind), places)
    strides = np.diff(places, axis=0, prepend=hand[None])
    relative = np.hstack([strides, np.zeros((5, 7))])
    np.testing.assert_allclose(plan_positions(relative, mode="relative", **kind), places)
    joints = [kinematics.solve(p, pointing_down(0.0), start=HOME_RAD)[0] for p in places]
    angles = np.hstack([joints, np.zeros((5, 1))])
    np.testing.assert_allclose(plan_positions(angles, mode="joints", **kind), places, atol=3e-4)


def test_colours_go_from_decided_to_noise_as_in_the_films():
    colors = level_colors(np.array([0.0, 0.5, 1.0]))
    assert tuple(colors[0]) == CLEAN
    assert tuple(colors[2]) == NOISE
    np.testing.assert_allclose(colors[1], (np.array(CLEAN) + NOISE) / 2, atol=1)


@pytest.mark.parametrize(("step", "num"), [(3, 4), (4, 4), (6, 2), (8, 0), (30, 0)])
def test_slots_that_are_over_are_not_shown(step, num):
    plan = Plan(
        start_step=4,
        actions=np.zeros((4, 10), np.float32),
        levels=np.zeros(4, np.float32),
        network_calls=1,
    )
    slots, levels = remaining_slots(plan, step=step)
    assert slots.shape == (num, 10)
    assert levels.shape == (num,)
    assert len(remaining_slots(None, step=step)[0]) == 0


def test_pictures_side_by_side_show_what_is_flagged_and_what_is_missing():
    picture = np.full((96, 96, 3), (10, 20, 30), np.uint8)
    row = camera_row({"front": picture}, names=("front", "wrist"), levels={"wrist": 1.0})
    front, wrist = row[:, :PICTURE_SIDE], row[:, -PICTURE_SIDE:]
    assert (front == (10, 20, 30)).all()
    assert tuple(wrist[0, 0]) == NOISE
    assert tuple(wrist[96, 96]) == (128, 128, 128)


def test_words_say_how_it_stands_and_escape_what_comes_from_outside():
    words = Words(
        title="a<b>",
        seed=3,
        step=20,
        max_steps=180,
        rate_hz=10.0,
        reward=0.5,
        is_success=False,
        subgoal="move 1: <reach>",
    )
    page = words_html(words)
    assert "a&lt;b&gt;" in page
    assert "move 1: &lt;reach&gt;" in page
    assert "episode 3, step 20 of 180 (2.0 s)" in page
    assert "goal reached" not in page
    assert plan_html(np.zeros(4)).count("rgb(37,99,235)") == 5  # four cells, and the scale's end
    assert "no plan" in plan_html(np.zeros(0))


# --- the loop's side ---


def test_showing_waits_for_nobody_and_drops_what_is_too_old(view, arm):
    is_free, painted = threading.Event(), []
    draw = view._panel.draw

    def draw_slowly(words, **rest):
        is_free.wait(10.0)
        painted.append(words.step)
        draw(words, **rest)

    view._panel.draw = draw_slowly
    result = arm.step(arm.physics.hand.to_vector())
    began_s = time.monotonic()
    for step in range(50):
        view.show(record(result, step=step))
    assert time.monotonic() - began_s < 1.0
    is_free.set()
    wait_until(lambda: 50 in painted)
    # the one being painted, whichever the painter woke up to, then the newest
    assert painted[-1] == 50
    assert len(painted) <= 2
    assert view.num_dropped == 50 - len(painted)


def test_what_is_shown_does_not_change_with_the_world(view, arm):
    scene: ArmScene = view._scene
    arm.reset(1)
    state = scene.capture()
    before = state.positions.copy(), state.colors.copy()
    away = arm.physics.hand.to_vector()
    away[2] += 0.05
    arm.step(away)
    arm.physics.disturbances.set_table_color(np.zeros(3))
    np.testing.assert_array_equal(state.positions, before[0])
    np.testing.assert_array_equal(state.colors, before[1])
    arm.physics.disturbances.reset()


# --- the page's address ---


def test_the_page_is_served_to_this_machine_alone_until_it_is_closed(capfd):
    view = LiveView(PlanarEnvironment(), title="planar", port=0)
    port = int(view.url.rsplit(":", 1)[1])
    assert view._server.get_host() == "127.0.0.1"
    with urllib.request.urlopen(view.url) as reply:
        assert b"<html" in reply.read()
    with pytest.raises(
        OSError, match=rf"port {port} .* is taken; give another, such as {port + 1}"
    ):
        LiveView(PlanarEnvironment(), title="planar", port=port)
    assert view._server.request_share_url() is None
    view.close()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        probe.listen()
    assert "viser" not in capfd.readouterr().out


def test_a_robot_that_nobody_watches_needs_no_viser():
    assert "viser" not in imported("deploy.run_robot")[1]
    assert "viser" in sys.modules  # as the view itself does
