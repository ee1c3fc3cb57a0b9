"""Checkpoints: a folder as LeRobot users know it, without pickle.

    config.json         how the model is built, and its planning modes
    model.safetensors   weights (the EMA's)
    schema.json         features it was trained on
    statistics.json     of the training episodes
    provenance.json     data, seed, steps, command
    novelty.safetensors what the training pictures were like, if there were any

A folder appears whole or not at all: it is written beside its place and then renamed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from policy.baselines.baseline import Baseline
from policy.baselines.lock_step import BaselineLockStep
from policy.construction import build, build_model
from policy.diffusion_forcing import DiffusionForcing
from policy.history import Mark
from policy.inference import LockStep, PolicySession, RunningEpisodes
from policy.novelty import Novelty, NoveltyError
from policy.planning import Planning
from teleop_data.schema import Schema, first_difference
from teleop_data.statistics import FeatureStatistics


class CheckpointError(ValueError):
    """A folder that is not a whole checkpoint, or one for another schema."""


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """Everything but the weights: what `config.json`, `schema.json` and `statistics.json` hold.

    Attributes:
        model: what `policy.construction.build_model` needs.
        planning: arguments of each inference mode, by name.
        schema: observed features and the action.
        statistics: of the training episodes, by feature.
        task: name of the task that it was trained for, "" if it has none.
        novelty: of its cameras' pictures, None if it was not fitted.
    """

    model: Mapping[str, Any]
    planning: Mapping[str, Any]
    schema: Schema
    statistics: Mapping[str, FeatureStatistics]
    task: str = ""
    novelty: Novelty | None = None

    def build(self) -> DiffusionForcing | Baseline:
        """The untrained model."""
        return build_model(self.model, schema=self.schema, statistics=self.statistics)


def save_checkpoint(
    folder: str | Path,
    description: ModelDescription,
    weights: Mapping[str, Tensor],
    *,
    provenance: Mapping[str, Any],
) -> None:
    """Write a checkpoint folder, replacing the one that is there."""
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    previous = folder.with_name(folder.name + ".previous")
    shutil.rmtree(partial, ignore_errors=True)
    if folder.exists():
        shutil.rmtree(previous, ignore_errors=True)
    partial.mkdir(parents=True)
    config = {
        "task": description.task,
        "model": description.model,
        "planning": description.planning,
    }
    statistics = {name: s.to_json() for name, s in description.statistics.items()}
    for name, content in {
        "config.json": config,
        "schema.json": description.schema.to_json(),
        "statistics.json": statistics,
        "provenance.json": dict(provenance),
    }.items():
        (partial / name).write_text(json.dumps(content, indent=2) + "\n")
    save_file({k: v.contiguous() for k, v in weights.items()}, partial / "model.safetensors")
    if description.novelty is not None:
        description.novelty.save(partial)
    if folder.exists():  # a folder cannot be replaced in one go: whatever happens, one is left
        os.replace(folder, previous)
    os.replace(partial, folder)
    shutil.rmtree(previous, ignore_errors=True)


def read_description(folder: str | Path) -> ModelDescription:
    """Everything but the weights. CheckpointError names the file that is missing or broken."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"no checkpoint folder at {folder}")
    config = _read_json(folder / "config.json")
    statistics = _read_json(folder / "statistics.json")
    try:
        return ModelDescription(
            model=config["model"],
            planning=config["planning"],
            schema=Schema.from_json(_read_json(folder / "schema.json")),
            statistics={k: FeatureStatistics.from_json(v) for k, v in statistics.items()},
            task=config.get("task", ""),
            novelty=Novelty.load(folder),
        )
    except NoveltyError as error:
        raise CheckpointError(str(error)) from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder} holds no description of a model: {error!r}") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} is not a checkpoint: it lacks {path.name}") from error
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error


class LoadedPolicy:
    """A checkpoint ready to act: a `policy.interface.Policy`, and lock-step batches of episodes."""

    def __init__(
        self,
        model: DiffusionForcing | Baseline,
        planning: Planning,
        *,
        mark: Mark = "noise",
        novelty: Novelty | None = None,
    ) -> None:
        """Act with `model`, planning as `planning` says. See `policy.history.Mark`.

        `novelty` tells whoever sets noise levels which pictures are unlike the training's.
        """
        if isinstance(model, Baseline) and mark != "noise":
            raise ValueError(f"a baseline knows no levels: mark must be noise, got {mark}")
        if mark != "noise" and isinstance(model, DiffusionForcing) and model.full_sequence:
            raise ValueError(
                f"full_sequence noises its whole context: mark must be noise, got {mark}"
            )
        self.model, self.planning = model.eval(), planning
        self.mark: Mark = mark
        self.novelty = novelty

    @property
    def schema(self) -> Schema:
        """Features it was trained on."""
        return self.model.schema

    def start_session(self, seed: int) -> PolicySession:
        """One episode."""
        return PolicySession(self.schema, self.start_lock_step([seed]))

    def start_lock_step(self, seeds: list[int]) -> RunningEpisodes:
        """As many episodes as seeds, advanced together."""
        if isinstance(self.model, Baseline):
            return BaselineLockStep(self.model, self.planning, seeds=seeds)
        return LockStep(self.model, self.planning, seeds=seeds, mark=self.mark)


def load_policy(
    folder: str | Path,
    *,
    inference: str = "rolling",
    schema: Schema | None = None,
    mark: Mark = "noise",
    **overrides: Any,
) -> LoadedPolicy:
    """The policy of a checkpoint folder.

    Args:
        folder: written by `save_checkpoint`.
        inference: name of a planning mode in `config.json`, "chunk" or "rolling".
        schema: what the robot or environment offers; the checkpoint must fit it.
        mark: how a source at a level above 0 is presented; anything but "noise" is to compare with.
        overrides: arguments of the planning mode, instead of the checkpoint's own.

    Raises:
        CheckpointError: something is missing or broken, or the schema differs; says what.
    """
    description = read_description(folder)
    if inference not in description.planning:
        have = ", ".join(description.planning)
        raise CheckpointError(f"no inference mode {inference!r} in {folder}; have: {have}")
    if schema is not None:
        check_schema(description.schema, offered=schema)
    planning = build(merge(description.planning[inference], overrides))
    try:
        model = description.build()
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder} describes no model that exists: {error}") from error
    _load_weights(model, folder, described_by="config.json")
    return LoadedPolicy(model, planning, mark=mark, novelty=description.novelty)


def weights_to_start_from(
    folder: str | Path, description: ModelDescription, *, given: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """All weights of a checkpoint, for training on as `description` says.

    Args:
        folder: written by `save_checkpoint`.
        description: of the model to be trained.
        given: weights that it will have whatever the checkpoint says: those of frozen encoders.

    Raises:
        CheckpointError: the checkpoint is of another model, schema or encoder; says what differs.
    """
    there = read_description(folder)
    difference = first_difference(there.schema, description.schema)
    if difference:
        raise CheckpointError(f"{folder} was trained on another schema: {difference}")
    model = description.build()
    _load_weights(model, folder, described_by="the model to be trained")
    weights = dict(model.state_dict())
    for name, value in given.items():
        if not torch.equal(weights[name], value):
            raise CheckpointError(f"{folder} was trained with another encoder: {name} differs")
    return weights


def _load_weights(
    model: DiffusionForcing | Baseline, folder: str | Path, *, described_by: str
) -> None:
    path = Path(folder) / "model.safetensors"
    try:
        model.load_state_dict(load_file(path))
    except (FileNotFoundError, SafetensorError) as error:
        raise CheckpointError(f"weights missing or broken: {path} ({error})") from error
    except RuntimeError as error:
        raise CheckpointError(f"weights of {path} do not fit {described_by}: {error}") from error


def merge(node: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`node` with `overrides` put in, nested dicts merged rather than replaced."""
    merged = dict(node)
    for key, value in overrides.items():
        inner = merged.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            value = merge(inner, value)
        merged[key] = value
    return merged


def check_schema(needed: Schema, *, offered: Schema) -> None:
    """CheckpointError unless `offered` has every feature that a policy needs, as it needs it.

    What else the robot offers does not matter; marks of angles are the policy's own business.
    """
    missing = set(needed.names) - set(offered.names)
    if missing:
        raise CheckpointError(
            f"the checkpoint needs {sorted(missing)}, which is not among {sorted(offered.names)}"
        )
    angles = {feature.name: feature.angles for feature in needed.features}
    difference = first_difference(needed, offered.select(needed.names).with_angles(angles))
    if difference:
        raise CheckpointError(f"the checkpoint was trained on another schema: {difference}")
