"""The scripted hand: how it walks at every rate, and the phrases that scripts are made of."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from sim.arm.actions import ActionMode
from sim.arm.environment import ArmEnvironment
from sim.arm.physics import HOME_M, ArmPhysics
from sim.arm.waypoints import PICK, PLACE, Script, Waypoint, at, go_home, near_home, pick, place
from sim.experts.scripted_hand import TURN_RAD_S, ScriptedHand
from sim.tasks.swap import Swap
from tests.contracts.teleoperator_contract import TeleoperatorContract

SIDE = np.array([0.45, 0.25, 0.30])


class Scripted(Swap):
    """The swap's table with another script."""

    subgoals = ("walk", "wait", *PICK, *PLACE, "home", "done")

    def __init__(self, script: Callable[[ArmPhysics, np.random.Generator], Script]) -> None:
        super().__init__(duration_s=30.0)
        self._script = script

    def script(self, world: ArmPhysics, rng: np.random.Generator) -> Script:
        return self._script(world, rng)


def follow(
    script: Callable[[ArmPhysics, np.random.Generator], Script],
    *,
    seed: int = 0,
    wander: float = 1.0,
    careful_wander_m: float = 0.0,
    meanwhile: Callable[[ArmPhysics, str], None] = lambda world, label: None,
    **options,
) -> tuple[ArmEnvironment, list[str], np.ndarray]:
    """Drive until "done" is pursued: the environment, the sub-goals and (T, 10) the states."""
    task = Scripted(script)
    environment = ArmEnvironment(task, features=("state",), **options)
    expert = ScriptedHand(environment, wander=wander, careful_wander_m=careful_wander_m)
    observation = environment.reset(seed)
    expert.reset(seed)
    labels, states = [], [observation["state"]]
    for _ in range(environment.max_steps):
        action = expert.act(observation)
        labels.append(task.subgoals[expert.labels()["subgoal"][0]])
        if labels[-1] == "done":
            return environment, labels, np.array(states)
        meanwhile(environment.physics, labels[-1])
        observation = environment.step(action).observation
        states.append(observation["state"])
    raise AssertionError(f"never done; last {labels[-1]}")


def done() -> Waypoint:
    return Waypoint(label="done", position=at(HOME_M), tolerance_m=0.0)


def yaw_of(state: np.ndarray) -> float:
    return float(np.arctan2(-state[3], state[4]))


def walk(**options) -> Callable[[ArmPhysics, np.random.Generator], Script]:
    """To the side."""

    def script(world: ArmPhysics, rng: np.random.Generator) -> Script:
        yield Waypoint(label="walk", position=at(SIDE), **options)
        yield done()

    return script


class TestAtAnotherRate(TeleoperatorContract):
    def make(self):
        environment = ArmEnvironment(Swap(), features=("state",), action="relative", rate_hz=50.0)
        return environment, ScriptedHand(environment)


@pytest.mark.parametrize(
    ("rate_hz", "action"), [(20.0, "absolute"), (25.0, "relative"), (50.0, "joints")]
)
def test_it_solves_the_swap_at_every_rate_in_every_mode(rate_hz: float, action: ActionMode):
    environment = ArmEnvironment(Swap(), features=("state",), action=action, rate_hz=rate_hz)
    expert = ScriptedHand(environment)
    observation = environment.reset(0)
    expert.reset(0)
    while not (result := environment.step(expert.act(observation))).terminated:
        pass
    assert result.success


def test_a_way_takes_as_long_at_every_rate():
    seconds = []
    for rate_hz in (10.0, 20.0, 50.0):
        times = [len(follow(walk(), seed=seed, rate_hz=rate_hz)[1]) / rate_hz for seed in range(4)]
        seconds.append(np.mean(times))
    assert seconds[0] == pytest.approx(0.8, abs=0.25)
    assert max(seconds) - min(seconds) < 0.2


def test_it_strays_as_far_at_every_rate():
    strays = []
    for rate_hz in (10.0, 50.0):
        aside = []
        for seed in range(12):
            states = follow(walk(), seed=seed, rate_hz=rate_hz)[2][:, :3]
            way = (SIDE - states[0]) / np.linalg.norm(SIDE - states[0])
            gone = states - states[0]
            aside.append(np.linalg.norm(gone - np.outer(gone @ way, way), axis=1).max())
        strays.append(np.median(aside))
    assert 0.008 < strays[0] < 0.04
    assert 0.5 < strays[1] / strays[0] < 2.0


def test_without_wander_it_walks_straight_and_with_care_nearly():
    def aside(**options) -> float:
        wander = options.pop("wander", 1.0)
        states = follow(walk(**options), seed=3, wander=wander)[2][:, :3]
        way = (SIDE - states[0]) / np.linalg.norm(SIDE - states[0])
        gone = states - states[0]
        return float(np.linalg.norm(gone - np.outer(gone @ way, way), axis=1).max())

    assert aside(wander=0.0) < 0.008
    assert aside(is_careful=True) < 0.012


def test_it_can_stray_on_careful_ways_with_open_fingers_and_still_arrives():
    def aside(**options) -> tuple[float, float]:
        careful_wander_m = options.pop("careful_wander_m")
        script = walk(is_careful=True, tolerance_m=0.006, **options)
        runs = [follow(script, seed=i, careful_wander_m=careful_wander_m)[2] for i in range(6)]
        farthest, last = [], []
        for states in (run[:, :3] for run in runs):
            way = (SIDE - states[0]) / np.linalg.norm(SIDE - states[0])
            gone = states - states[0]
            farthest.append(np.linalg.norm(gone - np.outer(gone @ way, way), axis=1).max())
            last.append(np.linalg.norm(states[-1] - SIDE))
        return float(np.median(farthest)), max(last)

    steady, astray = aside(careful_wander_m=0.0), aside(careful_wander_m=0.012)
    assert astray[0] > 1.5 * steady[0]
    assert astray[1] < 0.007
    assert aside(careful_wander_m=0.012, opening=0.0) == aside(careful_wander_m=0.0, opening=0.0)
    with pytest.raises(ValueError, match=r"careful_wander_m is -0\.1, expected 0 or more"):
        follow(walk(), careful_wander_m=-0.1)


def test_it_is_slower_with_care_and_seeds_differ_in_haste():
    careful = len(follow(walk(is_careful=True))[1])
    quick = {len(follow(walk(), seed=seed)[1]) for seed in range(8)}
    assert careful > max(quick)
    assert len(quick) > 1


def test_the_hand_turns_no_faster_than_it_may_and_the_short_way():
    def script(world: ArmPhysics, rng: np.random.Generator) -> Script:
        def is_turned() -> bool:
            return abs(yaw_of(world.hand.to_vector()) - 1.2) < 0.02

        yield Waypoint(label="walk", position=at(SIDE), yaw=1.2, tolerance_m=0.1, until=is_turned)
        yield done()

    for rate_hz in (10.0, 50.0):
        states = follow(script, rate_hz=rate_hz)[2]
        yaws = np.array([yaw_of(state) for state in states])
        assert yaws[-1] == pytest.approx(1.2, abs=0.05)
        assert yaws.min() > -0.1
        speeds = np.abs(np.diff(yaws)) * rate_hz
        assert 0.7 * TURN_RAD_S < speeds.max() < 1.15 * TURN_RAD_S


def test_a_way_point_that_moves_is_followed():
    place = SIDE.copy()

    def script(world: ArmPhysics, rng: np.random.Generator) -> Script:
        yield Waypoint(label="walk", position=lambda: place)
        yield done()

    def run_away(world: ArmPhysics, label: str) -> None:
        if world.tcp_position[1] > 0.15:
            place[1] = -0.2

    _, _, states = follow(script, meanwhile=run_away)
    assert states[:, 1].max() > 0.15
    assert states[-1, 1] == pytest.approx(-0.2, abs=0.03)


def test_until_is_waited_for():
    asked = []

    def third_time() -> bool:
        asked.append(True)
        return len(asked) >= 3

    def script(world: ArmPhysics, rng: np.random.Generator) -> Script:
        yield Waypoint(label="wait", position=at(world.tcp_position), until=third_time)
        yield done()

    labels = follow(script)[1]
    assert labels == ["wait", "wait", "done"]


def test_the_last_way_point_is_kept_and_a_script_without_any_is_refused():
    def only_home(world: ArmPhysics, rng: np.random.Generator) -> Script:
        yield from go_home()

    environment = ArmEnvironment(Scripted(only_home), features=("state",))
    expert = ScriptedHand(environment)
    observation = environment.reset(0)
    expert.reset(0)
    for _ in range(30):
        observation = environment.step(expert.act(observation)).observation
    np.testing.assert_allclose(observation["state"][:3], HOME_M, atol=0.012)

    environment = ArmEnvironment(Scripted(lambda world, rng: iter(())), features=("state",))
    expert = ScriptedHand(environment)
    with pytest.raises(RuntimeError, match="no way-point at all"):
        expert.act(environment.reset(0))


def test_hands_near_home_are_drawn():
    poses = [near_home(np.random.default_rng(seed)) for seed in range(200)]
    offsets = np.array([position for position, _ in poses]) - HOME_M
    yaws = np.array([yaw for _, yaw in poses])
    assert 0.009 < np.abs(offsets).max() <= 0.01
    assert 0.045 < np.abs(yaws).max() <= 0.05


# --- phrases ---


def pick_apple(world: ArmPhysics, rng: np.random.Generator) -> Script:
    yield from pick(world, "apple", rng=rng)
    yield done()


def test_pick_lifts_the_thing():
    for seed in range(4):
        environment, labels, _ = follow(pick_apple, seed=seed)
        world = environment.physics
        assert world.is_holding("apple")
        assert world.position("apple")[2] > 0.06
        assert list(dict.fromkeys(labels)) == [*PICK, "done"]


def test_a_first_try_can_miss_and_the_second_holds():
    def script(world: ArmPhysics, rng: np.random.Generator) -> Script:
        yield from pick(world, "apple", rng=rng, misses=1.0)
        yield done()

    for seed in range(4):
        environment, labels, states = follow(script, seed=seed)
        world = environment.physics
        assert world.is_holding("apple")
        order = [label for label, _ in itertools.groupby(labels)]
        assert order.count("grasp") == order.count("descend") == 2
        lift = labels.index("lift")
        assert states[lift, 2] > 0.045  # its top is at 0.06
        assert states[lift, 9] < 0.01  # m between the fingers: around nothing


def test_pick_follows_a_thing_that_was_pushed_away_and_tries_again():
    pushed = []

    def push(world: ArmPhysics, label: str) -> None:
        if label == "grasp" and not pushed:
            pushed.append(True)
            world.place("apple", world.position("apple") + [-0.09, 0.0, 0.0])

    environment, labels, _ = follow(pick_apple, meanwhile=push)
    assert pushed
    assert labels.count("reach") > 0
    assert environment.physics.is_holding("apple")
    first_lift = labels.index("lift")
    assert "reach" in labels[first_lift:]  # it saw that it held nothing


def test_place_sets_the_thing_down_where_it_is_told_and_lets_go():
    goal = np.array([0.40, 0.12, 0.028])

    def script(world: ArmPhysics, rng: np.random.Generator) -> Script:
        yield from pick(world, "orange", rng=rng, yaw=0.2, grasp_height=0.012)
        yield from place(world, "orange", position=goal, rng=rng)
        yield done()

    for seed in range(3):
        environment, labels, _ = follow(script, seed=seed)
        world = environment.physics
        np.testing.assert_allclose(world.position("orange"), goal, atol=0.012)
        assert world.rotation("orange")[2, 2] > 0.99
        assert not world.is_touching("orange")
        assert list(dict.fromkeys(labels)) == [*PICK, *PLACE, "done"]
