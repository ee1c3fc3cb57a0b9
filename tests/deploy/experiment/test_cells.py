"""Cells: which there are, when two are the same, and that the command told gives the same call."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from deploy.evaluate import EvaluateConfig, Flagging
from deploy.experiment.cells import (
    chosen,
    command_of,
    evaluation_of,
    expand,
    key_of,
    weights_of,
)
from deploy.experiment.plan import ExperimentPlan, read_plan
from tests.deploy.experiment.tiny_plan import write_plan


@pytest.fixture
def plan(tmp_path: Path) -> ExperimentPlan:
    return read_plan(str(write_plan(tmp_path) / "plan.yaml"))


def test_each_cell_once_in_order_of_priority_with_the_most_episodes(plan: ExperimentPlan):
    cells = {cell.folder: (cell.num_episodes, cell.num_videos) for cell in expand(plan)}
    assert list(cells.items()) == [
        ("ours/none-anytime-none", (3, 1)),  # of both groups; the oracle says nothing there
        ("other/none-anytime-none", (2, 1)),
        ("ours/black_now-anytime-none", (3, 0)),
        ("ours/black_now-anytime-oracle", (3, 0)),
        ("blind/black_now-anytime-oracle", (2, 0)),
    ]


def test_it_has_the_most_episodes_whichever_group_comes_first(plan: ExperimentPlan):
    plan.groups.reverse()
    cells = {cell.folder: (cell.num_episodes, cell.num_videos) for cell in expand(plan)}
    assert list(cells)[0] == "blind/black_now-anytime-oracle"
    assert cells["ours/none-anytime-none"] == (3, 1)


def test_automatic_flags_are_a_cell_of_their_own_in_a_healthy_world(plan: ExperimentPlan):
    """They may be false alarms."""
    plan.groups[0].flags = [Flagging.none, Flagging.oracle, Flagging.auto]
    folders = [cell.folder for cell in expand(plan) if cell.policy == "other"]
    assert folders == ["other/none-anytime-none", "other/none-anytime-auto"]


def test_another_task_has_cells_of_its_own(plan: ExperimentPlan):
    plan.groups.append(replace(plan.groups[0], task="push", policies=["ours"]))
    assert "ours/push-none-anytime-none" in [cell.folder for cell in expand(plan)]


def test_names_of_one_kind_add_up_and_kinds_restrict_each_other(plan: ExperimentPlan):
    cells = expand(plan)

    def left(*only: str) -> list[str]:
        return [cell.folder for cell in chosen(cells, only=only)]

    assert left() == [cell.folder for cell in cells]
    assert left("black_now", "ours") == [
        "ours/black_now-anytime-none",
        "ours/black_now-anytime-oracle",
    ]
    assert left("other", "blind") == ["other/none-anytime-none", "blind/black_now-anytime-oracle"]
    assert left("mechanism") == ["blind/black_now-anytime-oracle"]
    assert left("ours", "unflagged") == ["ours/none-anytime-none", "ours/black_now-anytime-none"]
    assert left("ours", "none") == ["ours/none-anytime-none"]
    with pytest.raises(ValueError, match=r"nothing is called \['hours'\]; have: .*ours"):
        left("ours", "hours")


def evaluations(plan: ExperimentPlan, checkpoint: Path) -> dict[str, EvaluateConfig]:
    return {
        cell.folder: evaluation_of(
            cell, plan=plan, checkpoint=checkpoint, output_dir=Path("out") / cell.folder
        )
        for cell in expand(plan)
    }


def composed(command: str) -> EvaluateConfig:
    """What forcing-evaluate makes of its command line."""
    words = shlex.split(command)
    assert words[0] == "forcing-evaluate"
    with initialize_config_module("deploy.configs", version_base=None):
        node = compose("evaluate", overrides=words[1:])
    config = cast(EvaluateConfig, OmegaConf.to_object(node))
    return replace(config, task=config.task["name"])


@pytest.mark.parametrize("name", ["tiny", "swap"])
def test_the_command_gives_the_same_call(plan: ExperimentPlan, tmp_path: Path, name: str):
    if name == "swap":
        plan = read_plan("swap")
    plan.policies["ours"].planning = {"staircase": {"ramp": 3}, "cold_calls": 2}
    calls = evaluations(plan, tmp_path / "my checkpoint=1")
    cells = {(cell.condition, cell.task): cell for cell in expand(plan)}
    for cell in list(cells.values())[:: 1 if name == "tiny" else 4]:
        evaluation = calls[cell.folder]
        base = plan.conditions.get(cell.condition, {}).get("base", cell.condition)
        assert composed(command_of(evaluation, base=base)) == evaluation


def test_a_key_is_of_all_that_the_numbers_depend_on(plan: ExperimentPlan, tmp_path: Path):
    one = evaluations(plan, tmp_path)["ours/black_now-anytime-oracle"]
    key = key_of(one, weights="w")
    assert key == key_of(replace(one, output_dir="x", checkpoint="y", num_videos=9), weights="w")
    perturbation = replace(one.perturbation, options={"a": 1})
    others = [
        key_of(one, weights="v"),
        key_of(replace(one, flag=Flagging.none), weights="w"),
        key_of(replace(one, num_episodes=4), weights="w"),
        key_of(replace(one, first_seed=51), weights="w"),
        key_of(replace(one, perturbation=perturbation), weights="w"),
        key_of(replace(one, planning={"cold_calls": 3}), weights="w"),
    ]
    assert len({key, *others}) == 7


def test_weights_are_known_by_their_content(tmp_path: Path):
    folders = [write_plan(tmp_path / n) / "checkpoints" / "tiny" / "checkpoint" for n in "ab"]
    first, second = map(weights_of, folders)
    assert first == second
    with (folders[1] / "model.safetensors").open("ab") as file:
        file.write(b" ")
    assert weights_of(folders[1]) != first
    (folders[1] / "config.json").unlink()
    with pytest.raises(ValueError, match="lacks config.json"):
        weights_of(folders[1])
