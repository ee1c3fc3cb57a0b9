"""Disturbances: pictures change, the physics does not, and nothing stays or leaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from sim.arm.physics import ArmPhysics
from tests.sim.arm.arm_motions import down_at, fruit_world, trajectory, wild_actions

PIXELS = 64
FRUIT_ROOM = np.array([0.40, 0.10, 0.0])  # where a distractor is seen by both cameras

CHANGES: dict[str, Callable[[ArmPhysics], None]] = {
    "distractor": lambda w: w.disturbances.show_distractor(0, position=FRUIT_ROOM, yaw=0.4),
    "occluder": lambda w: w.disturbances.show_occluder("front", offset=np.zeros(2), share=0.5),
    "light": lambda w: w.disturbances.set_light(brightness=0.5, tint=np.array([1.2, 1.0, 0.7])),
    "table_color": lambda w: w.disturbances.set_table_color(np.array([0.1, 0.5, 0.3])),
}
UNDO: dict[str, Callable[[ArmPhysics], None]] = {
    "distractor": lambda w: w.disturbances.hide_distractors(),
    "occluder": lambda w: w.disturbances.hide_occluder(),
    "light": lambda w: w.disturbances.set_light(brightness=1.0, tint=np.ones(3)),
    "table_color": lambda w: w.disturbances.set_table_color(None),
}


@pytest.fixture
def world() -> Iterator[ArmPhysics]:
    world = fruit_world()
    yield world
    world.close()


def look(world: ArmPhysics, camera: str = "front") -> np.ndarray:
    return world.picture(camera, height=PIXELS, width=PIXELS)


@pytest.mark.parametrize("change", CHANGES)
def test_a_picture_shows_it_and_undoing_it_gives_the_same_pixels_again(
    world: ArmPhysics, change: str
):
    before = look(world)
    CHANGES[change](world)
    changed = look(world)
    assert (changed != before).any(-1).mean() > 0.001
    UNDO[change](world)
    np.testing.assert_array_equal(look(world), before)


def test_a_reset_undoes_everything(world: ArmPhysics):
    world.reset()
    before = look(world)
    for reset in (world.reset, world.disturbances.reset):
        for change in CHANGES.values():
            change(world)
        reset()
        np.testing.assert_array_equal(look(world), before)


def test_the_physics_does_not_notice():
    calm, disturbed = fruit_world(), fruit_world()
    actions = wild_actions(calm, num=40)
    expected = trajectory(calm, actions)
    for step, (action, state) in enumerate(zip(actions, expected, strict=True)):
        for number, name in enumerate(CHANGES):
            if step % 7 == number:
                CHANGES[name](disturbed)
            if step % 7 == number + 3:
                UNDO[name](disturbed)
        disturbed.step(action)
        np.testing.assert_array_equal(
            np.concatenate([disturbed.data.qpos, disturbed.data.qvel]), state
        )


def test_a_distractor_in_the_hands_way_is_not_felt():
    free, crowded = fruit_world(), fruit_world()
    place = np.array([0.45, 0.1, 0.0])
    crowded.disturbances.show_distractor(3, position=place, yaw=0.0)
    target = down_at(place + [0, 0, 0.02])
    for world in (free, crowded):
        for _ in range(10):
            world.step(world.action_towards(target))
    np.testing.assert_array_equal(free.data.qpos, crowded.data.qpos)


def test_worlds_made_alike_do_not_share_light_or_colour(world: ArmPhysics):
    other = fruit_world()
    before = look(other)
    np.testing.assert_array_equal(look(world), before)
    for change in CHANGES.values():
        change(world)
    changed = look(world)
    np.testing.assert_array_equal(look(other), before)
    np.testing.assert_array_equal(look(world), changed)
    other.close()


def test_a_saved_state_takes_its_looks_along(world: ArmPhysics):
    for change in CHANGES.values():
        change(world)
    saved, pictures = world.save(), [look(world, camera) for camera in ("front", "wrist")]
    other = fruit_world(seed=7)
    other.restore(saved)
    for camera, picture in zip(("front", "wrist"), pictures, strict=True):
        np.testing.assert_array_equal(look(other, camera), picture)
    action = world.action_towards(down_at((0.5, 0.2, 0.2)))
    for one in (world, other):
        one.step(action)
    np.testing.assert_array_equal(look(other), look(world))

    calm = fruit_world()
    expected = look(calm)
    calm_state = calm.save()
    world.restore(calm_state)
    np.testing.assert_array_equal(look(world), expected)
    for one in (calm, other):
        one.close()


@pytest.mark.parametrize("camera", ["front", "wrist"])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_an_occluder_covers_its_share_and_follows_its_camera(
    world: ArmPhysics, camera: str, share: float
):
    other = "wrist" if camera == "front" else "front"
    world.disturbances.show_occluder(camera, offset=np.zeros(2), share=share)
    for target in ((0.42, 0.0, 0.25), (0.5, -0.2, 0.1), (0.4, 0.2, 0.3)):
        for _ in range(8):
            world.step(world.action_towards(down_at(target, yaw=target[1])))
        bare = fruit_world()
        bare.restore(world.save())
        bare.disturbances.hide_occluder()
        covered = (look(world, camera) != look(bare, camera)).any(-1)
        assert covered.mean() == pytest.approx(share**2, abs=0.03)
        rows, columns = np.nonzero(covered)
        assert (rows.mean(), columns.mean()) == pytest.approx((31.5, 31.5), abs=1.0)
        assert (look(world, other) != look(bare, other)).any(-1).mean() < 0.25
        bare.close()


def test_an_occluder_hangs_where_it_is_told(world: ArmPhysics):
    before = look(world)
    world.disturbances.show_occluder("front", offset=np.array([0.5, 0.5]), share=0.3)
    rows, columns = np.nonzero((look(world) != before).any(-1))
    assert columns.mean() == pytest.approx(48, abs=1.5)  # to the right
    assert rows.mean() == pytest.approx(16, abs=1.5)  # and up


def test_unknown_cameras_and_distractors_are_refused(world: ArmPhysics):
    with pytest.raises(KeyError, match="side"):
        world.disturbances.show_occluder("side", offset=np.zeros(2), share=0.3)
    with pytest.raises(IndexError):
        world.disturbances.show_distractor(99, position=FRUIT_ROOM, yaw=0.0)
