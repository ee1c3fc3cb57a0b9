"""Changes of the world, on the arm's swap task: what they change, when, and what they leave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from sim.arm.environment import ArmEnvironment
from sim.experts.scripted_hand import ScriptedHand
from sim.perturbations.environment import PerturbedEnvironment
from sim.perturbations.kinds import Perturbation, perturbation
from sim.perturbations.world import MIN_GAP_M
from sim.push_t import PushT
from sim.tasks.pick_place import pick_place_environment
from sim.tasks.swap import Swap
from teleop_data.environment import Observation

CAMERAS = ("front", "wrist")
SCENE_KINDS = ("distractors", "occluder", "light", "table_color")
NUM_STEPS = 8


@pytest.fixture(scope="module")
def arm() -> Iterator[ArmEnvironment]:
    environment = ArmEnvironment(Swap(), pixels=48)
    yield environment
    environment.close()


def changed(
    arm: ArmEnvironment, kind: str, *, start: int = 3, length: int | None = 3, **options
) -> Perturbation:
    return perturbation(kind, schema=arm.schema, start=(start, start), length=length, **options)


def play(
    arm: ArmEnvironment,
    perturbations: Sequence[Perturbation] = (),
    *,
    seed: int = 4,
    num_steps: int = NUM_STEPS,
) -> tuple[list[Observation], list[np.ndarray], PerturbedEnvironment]:
    """Observations and MuJoCo's positions at steps 0 to `num_steps` of a hand that moves a little,
    and the environment as it was left."""
    environment = PerturbedEnvironment(arm, perturbations)
    shown, positions = [environment.reset(seed)], [arm.physics.data.qpos.copy()]
    rng = np.random.default_rng(0)
    for _ in range(num_steps):
        action = arm.physics.hand.to_vector()
        action[:3] += rng.uniform(-0.01, 0.01, size=3)
        shown.append(environment.step(action.astype(np.float32)).observation)
        positions.append(arm.physics.data.qpos.copy())
    return shown, positions, environment


@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_pictures_change_in_the_window_and_nothing_else_ever_does(
    arm: ArmEnvironment, kind: str, start: int
):
    true, true_positions, _ = play(arm)
    shown, positions, _ = play(arm, [changed(arm, kind, start=start)])
    np.testing.assert_array_equal(positions, true_positions)
    for step, (one, other) in enumerate(zip(shown, true, strict=True)):
        np.testing.assert_array_equal(one["state"], other["state"])
        is_as_ever = np.array_equal(one["front"], other["front"])
        assert is_as_ever is not (start <= step < start + 3)
        if kind in ("light", "table_color"):  # the others may be out of its sight
            assert np.array_equal(one["wrist"], other["wrist"]) is is_as_ever


@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_a_change_is_a_function_of_the_seed(arm: ArmEnvironment, kind: str):
    fault = changed(arm, kind, start=0, length=None)

    def first_picture(seed: int) -> np.ndarray:
        play(arm, [fault], seed=seed + 100, num_steps=1)
        return play(arm, [fault], seed=seed, num_steps=0)[0][0]["front"].astype(float)

    once, again, other = first_picture(1), first_picture(1), first_picture(2)
    np.testing.assert_array_equal(once, again)
    plain = [play(arm, seed=seed, num_steps=0)[0][0]["front"].astype(float) for seed in (1, 2)]
    assert np.abs((once - plain[0]) - (other - plain[1])).max() > 20


def test_an_episode_cut_off_leaves_no_trace_in_the_next(arm: ArmEnvironment):
    true = play(arm)[0]
    play(arm, [changed(arm, kind, start=0, length=None) for kind in SCENE_KINDS], num_steps=2)
    for one, other in zip(play(arm)[0], true, strict=True):
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name])


@pytest.mark.parametrize(
    ("camera", "share"),
    [("front", 0.1), ("front", 0.3), ("front", 1.0), ("wrist", 0.1), ("wrist", 0.3)],
)
def test_an_occluder_covers_its_share_of_its_camera_only(
    arm: ArmEnvironment, camera: str, share: float
):
    true = play(arm)[0]
    fault = changed(arm, "occluder", start=1, length=4, sources=[camera], share=share)
    shown, _, _ = play(arm, [fault])
    other = CAMERAS[1 - CAMERAS.index(camera)]
    for step in range(1, 5):
        elsewhere = (shown[step][other] != true[step][other]).any(-1).mean()
        # the front camera sees the plate that hangs before the hand's
        assert elsewhere == 0 if camera == "front" else elsewhere < 0.06
        is_plate = (shown[step][camera] != true[step][camera]).any(-1)
        assert is_plate.mean() == pytest.approx(share, abs=0.05)
    # the plate hangs on the camera: the same pixels while the hand moves
    rows, columns = np.nonzero(is_plate)
    later = (shown[1][camera] != true[1][camera]).any(-1)
    assert later[rows, columns].mean() > 0.95


def test_distractors_lie_apart_on_the_table(arm: ArmEnvironment):
    data, model = arm.physics.data, arm.physics.model
    bodies = [model.body(f"distractor{i}").mocapid[0] for i in range(4)]
    low, high = arm.physics.disturbances.table_bounds
    for seed in range(10):
        play(arm, [changed(arm, "distractors", start=0, num=3)], seed=seed, num_steps=0)
        places = data.mocap_pos[bodies]
        places = places[places[:, 2] > -1]
        assert len(places) == 3
        assert (places[:, :2] >= low).all()
        assert (places[:, :2] <= high).all()
        things = [arm.physics.position(name) for name in arm.physics.movable_names]
        everything = np.array([*places, *things])[:, :2]
        gaps = np.linalg.norm(everything[:, None] - places[None, :, :2], axis=-1)
        assert gaps[~np.eye(len(gaps), 3, dtype=bool)].min() >= MIN_GAP_M
    play(arm, [changed(arm, "distractors", start=0, num=9)], num_steps=0)
    assert (data.mocap_pos[bodies][:, 2] > -1).all()


def test_light_is_dimmed_as_asked(arm: ArmEnvironment):
    true = play(arm, num_steps=0)[0][0]["front"].astype(float)
    fault = changed(arm, "light", start=0, brightness=(0.5, 0.5), tint=0.0)
    dim = play(arm, [fault], num_steps=0)[0][0]["front"].astype(float)
    lit = (true > 40) & (true < 250)
    assert 0.45 < np.median(dim[lit] / true[lit]) < 0.9  # the sky and the headlight's part stay


def test_a_nudge_moves_one_thing_once_and_spoils_no_source(arm: ArmEnvironment):
    things = arm.physics.movable_names
    addresses = {n: int(arm.physics.model.joint(n).qposadr[0]) for n in things}
    fault = changed(arm, "nudge", length=1)
    nudged = set()
    for seed in range(6):
        true, true_positions, _ = play(arm, seed=seed)
        shown, positions, environment = play(arm, [fault], seed=seed)
        assert environment.sight.truth == {}
        np.testing.assert_array_equal(positions[:4], true_positions[:4])
        np.testing.assert_array_equal(shown[3]["front"], true[3]["front"])
        way = np.subtract(positions[-1], true_positions[-1])
        distances = [float(np.linalg.norm(way[a : a + 2])) for a in addresses.values()]
        (index,) = np.flatnonzero(np.array(distances) > 1e-4)
        assert 0.01 < distances[index] < 0.15
        nudged.add(things[index])
    assert nudged == set(things)


def test_contact_starts_what_waits_for_it(arm: ArmEnvironment):
    """In the expert's episode: the first touch, seen at the same step as by who asks the world."""
    schema, expert = arm.schema, ScriptedHand(arm)
    during = perturbation("occluder", schema=schema, phase="during_contact", length=4)
    before = perturbation(
        "light", schema=schema, phase="before_contact", start=(2, 2), length=2, level=0.5
    )
    too_late = perturbation("black", schema=schema, phase="before_contact", start=(35, 35))
    environment = PerturbedEnvironment(arm, [during, before, too_late])
    observation = environment.reset(1)
    expert.reset(1)
    touches, truths = [arm.physics.is_in_contact], [environment.sight.truth]
    for _ in range(40):
        observation = environment.step(expert.act(observation)).observation
        touches.append(arm.physics.is_in_contact)
        truths.append(environment.sight.truth)
    first = touches.index(True)
    assert 5 < first < 35
    assert [step for step, truth in enumerate(truths) if truth["front"] == 1.0] == [
        *range(first, first + 4)
    ]
    windows = [row["window"] for row in environment.facts()["perturbations"]]
    assert windows == [[first, first + 4], [2, 4], None]


def test_the_truth_says_which_cameras_and_how_much(arm: ArmEnvironment):
    faults = [
        changed(arm, "distractors", start=1, level=0.5),
        changed(arm, "occluder", sources=["wrist"]),
    ]
    environment = PerturbedEnvironment(arm, faults)
    environment.reset(0)
    action = arm.physics.hand.to_vector()
    told = [environment.sight]
    for _ in range(6):
        environment.step(action)
        told.append(environment.sight)
    assert [sight.truth["front"] for sight in told] == [0, 0.5, 0.5, 0.5, 0, 0, 0]
    assert [sight.truth["wrist"] for sight in told] == [0, 0.5, 0.5, 1, 1, 1, 0]
    assert [sight.is_world_perturbed for sight in told] == [False, *[True] * 5, False]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("distractors", {"num": 0}, "at least 1"),
        ("occluder", {"share": 1.5}, r"expected in \(0, 1\]"),
        ("light", {"brightness": (2, 1)}, "low <= high"),
        ("light", {"tint": -0.1}, "within"),
        ("nudge", {"speed": 0}, "above 0"),
        ("table_color", {"rgb": (1, 0, 0)}, "no option"),
    ],
)
def test_options_out_of_range_are_refused(
    arm: ArmEnvironment, kind: str, options: dict, message: str
):
    with pytest.raises(ValueError, match=message):
        changed(arm, kind, **options)


def test_two_of_a_kind_are_refused(arm: ArmEnvironment):
    with pytest.raises(ValueError, match="light, light: a world has one of each kind"):
        PerturbedEnvironment(arm, [changed(arm, "light"), changed(arm, "light")])


def test_worlds_that_offer_nothing_are_refused_with_what_they_lack():
    planar, push_t = pick_place_environment(), PushT()
    for environment in (planar, push_t):
        fault = perturbation("distractors", schema=environment.schema)
        with pytest.raises(ValueError, match=r"cannot be changed from outside.*Disturbable"):
            PerturbedEnvironment(environment, [fault])
    waiting = perturbation("black", schema=push_t.schema, phase="during_contact")
    with pytest.raises(ValueError, match=r"PushT .*does not tell when.*phase=anytime"):
        PerturbedEnvironment(push_t, [waiting])
    push_t.close()
