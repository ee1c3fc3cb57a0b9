"""Plans: those that come with the package hold together; what is wrong in one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.evaluate import Marking
from deploy.experiment.plan import condition, plan_names, policies_of, read_plan, to_yaml
from sim.perturbations.conditions import perturbations_of
from sim.task_descriptions import task_names
from teleop_data.schema import Feature, Schema
from tests.deploy.experiment.tiny_plan import PLAN

ARM = Schema(
    features=(
        *(
            Feature(name=name, shape=(96, 96, 3), dtype="uint8", role="camera")
            for name in ("front", "wrist")
        ),
        Feature(name="state", shape=(10,), role="state"),
        Feature(name="action", shape=(10,), role="action"),
    ),
    rate_hz=10.0,
)


def written(folder: Path, text: str) -> str:
    (folder / "plan.yaml").write_text(text)
    return str(folder / "plan.yaml")


@pytest.mark.parametrize("name", ["pick_place", "swap"])
def test_every_plan_names_tasks_and_perturbations_that_there_are(name: str):
    plan = read_plan(name)
    for group in plan.groups:
        assert (group.task or plan.task) in task_names()
        assert policies_of(plan, group), group.name
        for phase in group.phases:
            for what in group.conditions:
                config = condition(plan, what)
                config.phase = phase.value
                perturbations_of(config, schema=ARM)
    assert set(plan_names()) == {"pick_place", "swap"}


def test_a_condition_of_the_plan_is_its_base_with_changes(tmp_path: Path):
    plan = read_plan(written(tmp_path, PLAN))
    noise = condition(plan, "noise_now")
    assert (noise.name, noise.kind, noise.options) == ("noise_now", "noise", {"std": 0.5})
    assert (noise.start, noise.length) == ([1, 2], "0.4 s")
    assert condition(plan, "noise_0.1").options == {"std": 0.1}


def test_sizes_are_referred_to_and_changed(tmp_path: Path):
    path = written(tmp_path, PLAN)
    assert [group.num_episodes for group in read_plan(path).groups] == [2, 3, 2]
    changed = read_plan(path, changes={"sizes": {"few": 7}})
    assert [group.num_episodes for group in changed.groups] == [7, 3, 2]


def test_roles_stand_for_their_policies(tmp_path: Path):
    plan = read_plan(written(tmp_path, PLAN))
    assert policies_of(plan, plan.groups[0]) == ["ours", "other"]
    assert policies_of(plan, plan.groups[2]) == ["blind"]


def test_what_is_written_is_read_again(tmp_path: Path):
    plan = read_plan(written(tmp_path, PLAN))
    assert plan.policies["blind"].mark is Marking.zeros
    assert read_plan(written(tmp_path, to_yaml(plan))) == plan


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("policies: [ours]", "policies: [hours]", "table: no policy 'hours'; have: .*ours"),
        ("[none, black_now]", "[fog]", "table: no condition 'fog'; have: action_latency"),
        ("noise_now}}", "fog}}", "curve noise: no condition 'fog'"),
        ("base: black,", "base: fog,", "no condition 'fog'"),
        ("length: 4", "lenght: 4", "condition 'black_now'.*lenght"),
        ("mark: zeros", "mark: ones", "ones"),
        ("is_augmented", "augmented", "augmented"),
        ("flags: [none, oracle]", "flags: [maybe]", "maybe"),
        ("many: 3", "many: 0", "num_episodes is 0"),
        ("short_history: other", "short_history: nobody", "targets: no policy 'nobody'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str):
    assert old in PLAN
    with pytest.raises(ValueError, match=message):
        read_plan(written(tmp_path, PLAN.replace(old, new)))


def test_a_plan_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no plan 'swop'; have: pick_place, swap"):
        read_plan("swop")
    with pytest.raises(ValueError, match="no plan at"):
        read_plan(str(tmp_path / "plan.yaml"))
