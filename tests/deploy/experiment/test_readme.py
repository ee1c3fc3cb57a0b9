"""The tables of README's sections on swap and pick and place say what the results on disk say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from deploy.experiment.comparison import difference
from deploy.experiment.curves import swap_outcomes
from deploy.experiment.measured import Experiment, Measured, paired, read_experiment
from deploy.results import success_interval

ROOT = Path(__file__).parents[3]
EXPERIMENTS = ROOT / ".github" / "experiments"
RESULTS = EXPERIMENTS / "swap" / "results"

CONDITIONS = {
    "clean": "none",
    "both black for 2 s": "black_2s",
    "both black for good": "black_for_good",
    "a plate before the front camera, 2 s": "occluder",
    "distractors on the table, for good": "distractors",
}
FLAGS = ("none", "oracle", "auto")
MECHANISMS = {
    "noise, and the policy is told (ours)": "ours",
    "its token left out altogether": "ours_drop",
    "zeros, and it is not told": "ours_zeros",
    "as ours, with a rolling plan": "ours_rolling",
    "its picture, and the policy is told not to believe it": "ours_flag",
}
BASELINES = {
    "Forcing (ours)": "ours",
    "next-frame diffusion": "next_frame",
    "full-sequence diffusion": "full_sequence",
    "Diffusion Policy, long history": "diffusion_policy_long",
    "Diffusion Policy, long history, drop-out": "diffusion_policy_long_drop_out",
    "Diffusion Policy, two observations": "diffusion_policy",
    "Diffusion Policy, two observations, drop-out": "diffusion_policy_drop_out",
    "BC-RNN-GMM": "bc_rnn",
    "BC-RNN-GMM, drop-out": "bc_rnn_drop_out",
    "ACT": "act",
    "ACT, drop-out": "act_drop_out",
}
AHEAD_OF = (
    "next-frame diffusion",
    "Diffusion Policy, long history, drop-out",
    "BC-RNN-GMM, drop-out",
)
TRAININGS = {
    "as ours, seed 1": "seed_1",
    "as ours, seed 2": "seed_2",
    "one level for all sources of a step": "one_level",
    "levels drawn independently only": "independent",
    "not asked where the gripper next opens or closes": "no_keyposes",
    "the denoising loss alone": "no_auxiliary",
    "memory of 60 steps": "memory_60",
    "memory of 20 steps": "memory_20",
}
PICK_PLACE = {
    "Forcing (ours)": "ours",
    "next-frame diffusion": "next_frame",
    "full-sequence diffusion": "full_sequence",
    "Diffusion Policy": "diffusion_policy",
    "Diffusion Policy, drop-out": "diffusion_policy_drop_out",
    "Diffusion Policy, long history": "diffusion_policy_long",
    "Diffusion Policy, long history, drop-out": "diffusion_policy_long_drop_out",
    "BC-RNN-GMM, drop-out": "bc_rnn_drop_out",
    "ACT": "act",
    "Forcing (ours), 8,000 steps": "ours_8000",
    "Diffusion Policy, 8,000 steps": "diffusion_policy_8000",
    "Diffusion Policy, long history, drop-out, 8,000 steps": "diffusion_policy_long_drop_out_8000",
}
UNDER = (
    ("none", "none"),
    ("black_2s", "none"),
    ("black_2s", "oracle"),
    ("black_for_good", "oracle"),
)


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return read_experiment(RESULTS)


def rows_of_section(name: str = "swap") -> dict[str, list[str]]:
    """Cells of each table row between the section's marks, by the first one."""
    marks = rf"<!-- {name}: begin -->(.*)<!-- {name}: end -->"
    section = re.search(marks, (ROOT / "README.md").read_text(), re.DOTALL)
    assert section is not None
    lines = [line for line in section[1].splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in rows}


def words(cell: Measured | None) -> str:
    assert cell is not None
    low, high = cell.interval
    return f"{cell.rate:.2f} [{low:.2f}, {high:.2f}]"


def points(one: Measured | None, other: Measured | None) -> str:
    """One minus the other, in points."""
    assert one is not None
    assert other is not None
    found = difference(*paired(one, other))
    value, low, high = (round(100 * x) for x in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def words_of(outcomes: np.ndarray) -> str:
    low, high = success_interval(int(outcomes.sum()), len(outcomes))
    return f"{outcomes.mean():.2f} [{low:.2f}, {high:.2f}]"


@pytest.mark.parametrize("label", CONDITIONS)
def test_cameras(experiment: Experiment, label: str) -> None:
    cells = rows_of_section()[label]
    expected = [words(experiment.find("ours", CONDITIONS[label], flag=flag)) for flag in FLAGS]
    if label == "clean":
        expected[FLAGS.index("oracle")] = ""  # there is nothing to tell
    assert cells == expected


def test_fourteen_faults(experiment: Experiment) -> None:
    """Before and during contact, in words."""
    cells = [cell for cell in experiment.of("ours", perturbed=True) if cell.phase != "anytime"]

    def words(chosen: list[Measured]) -> str:
        return f"{sum(sum(c.successes.values()) for c in chosen)} of {sum(c.num for c in chosen)}"

    assert len({cell.condition for cell in cells}) == 14
    unflagged = [cell for cell in cells if cell.flag == "none"]
    one_of_two, swapped = (
        [cell for cell in unflagged if cell.condition == name] for name in ("one_of_two", "swapped")
    )
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"{words([c for c in cells if c.flag != 'none'])} episodes succeed" in text
    assert f"unflagged {words(unflagged)}, and" in text
    assert f"one camera of two black ({words(one_of_two)})" in text
    assert f"exchanged feeds ({words(swapped)})" in text


@pytest.mark.parametrize("label", MECHANISMS)
def test_mechanism(experiment: Experiment, label: str) -> None:
    row = next(cells for name, cells in rows_of_section().items() if name.startswith(label))
    policy = MECHANISMS[label]
    conditions = ("black_2s", "black_for_good")
    assert row == [words(experiment.find(policy, name, flag="oracle")) for name in conditions]


@pytest.mark.parametrize("label", BASELINES)
def test_baselines(experiment: Experiment, label: str) -> None:
    cells = [experiment.find(BASELINES[label], name, flag=flag) for name, flag in UNDER]
    assert rows_of_section()[label] == ["" if cell is None else words(cell) for cell in cells]


@pytest.mark.parametrize("label", TRAININGS)
def test_other_trainings(experiment: Experiment, label: str) -> None:
    under = (("none", "none"), ("black_2s", "oracle"), ("black_for_good", "oracle"))
    cells = [experiment.find(TRAININGS[label], name, flag=flag) for name, flag in under]
    assert rows_of_section()[label] == ["" if cell is None else words(cell) for cell in cells]


@pytest.mark.parametrize("label", AHEAD_OF)
def test_points_ahead_of_the_better_camera(experiment: Experiment, label: str) -> None:
    expected = []
    for name in CONDITIONS.values():
        ours = experiment.find("ours", name, flag="oracle")
        theirs = [experiment.find(BASELINES[label], name, flag=flag) for flag in FLAGS[:2]]
        better = max((cell for cell in theirs if cell is not None), key=lambda cell: cell.rate)
        expected.append(points(ours, better))
    assert rows_of_section()[f"ours minus {label}"] == expected


def test_what_the_denoising_loss_alone_is_worth(experiment: Experiment) -> None:
    other = BASELINES["Diffusion Policy, long history, drop-out"]
    clean, dark, dark_for_good = (
        points(*(experiment.find(policy, name, flag=flag) for policy in ("no_auxiliary", other)))
        for name, flag in UNDER
        if name == "none" or flag == "oracle"
    )
    told = clean.replace(" ", " points ", 1)
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"clean {told}, black for 2 s {dark}, for good {dark_for_good}." in text


def test_next_frame_behind_the_plate_and_among_distractors(experiment: Experiment) -> None:
    unflagged, flagged = (
        [
            words(experiment.find("next_frame", name, flag=flag))
            for name in ("occluder", "distractors")
        ]
        for flag in FLAGS[:2]
    )
    text = " ".join((ROOT / "README.md").read_text().split())
    assert (
        f"{unflagged[0]} behind the plate and {unflagged[1]} among distractors, unflagged" in text
    )
    assert f"and {flagged[0]} and {flagged[1]} flagged" in text


def test_one_camera_of_two(experiment: Experiment) -> None:
    one_level, ours = (
        experiment.find(policy, "one_of_two", flag="oracle") for policy in ("one_level", "ours")
    )
    text = " ".join((ROOT / "README.md").read_text().split())
    more = points(ours, one_level).replace(" ", " points ", 1)
    assert f"{words(one_level)}, flagged, ours {words(ours)}, {more} more" in text


@pytest.mark.parametrize("num_swaps", [4, 10, 20])
def test_swap_after_swap(experiment: Experiment, num_swaps: int) -> None:
    cell = experiment.find("again", "none", flag="none", task=f"swap_{num_swaps}")
    assert cell is not None
    outcomes = swap_outcomes(cell)
    first, last = (words_of(outcomes[:, i]) for i in (0, -1))
    assert rows_of_section()[f"{num_swaps} swaps"] == [
        f"{outcomes.all(1).sum()} of {len(outcomes)}", first, last, f"{outcomes.mean():.3f}"
    ]  # fmt: skip


@pytest.fixture(scope="module")
def pick_place() -> Experiment:
    return read_experiment(EXPERIMENTS / "pick_place" / "results")


@pytest.mark.parametrize("label", PICK_PLACE)
def test_pick_and_place(pick_place: Experiment, label: str) -> None:
    policy = PICK_PLACE[label]
    cells = [pick_place.find(policy, name, flag=flag) for name, flag in UNDER[:3]]
    assert rows_of_section("pick and place")[label] == [words(cell) for cell in cells]


@pytest.mark.parametrize("label", ["Diffusion Policy", "Diffusion Policy, long history, drop-out"])
def test_pick_and_place_trained_longer(pick_place: Experiment, label: str) -> None:
    other = PICK_PLACE[f"{label}, 8,000 steps"]
    expected = [
        points(*(pick_place.find(policy, name, flag=flag) for policy in ("ours_8000", other)))
        for name, flag in (("none", "none"), ("black_2s", "oracle"))
    ]
    assert rows_of_section("pick and place")[f"ours minus {label}"] == expected


def test_pick_and_place_behind_the_plate_and_among_distractors(pick_place: Experiment) -> None:
    (plate, plate_unflagged), (distractors, distractors_unflagged) = (
        [words(pick_place.find("ours", name, flag=flag)) for flag in ("oracle", "none")]
        for name in ("occluder", "distractors")
    )
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"the plate ({plate}, unflagged {plate_unflagged})" in text
    assert f"the distractors ({distractors}, unflagged {distractors_unflagged})" in text
