"""Entry point `forcing-train`: a policy from a replay buffer.

    forcing-train recipe=pusht_state data.path=<store.zarr> output_dir=<folder>

The same command again goes on where the run was cut off; `start_from=<checkpoint>` trains that one
on, into a folder of its own.
"""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from policy.checkpoint import ModelDescription, read_description, weights_to_start_from
from policy.frozen_encoder import encode_episodes, load_encoders
from policy.novelty import fit_novelty
from policy.precision import chosen_precision
from policy.training import TrainingSettings, train
from teleop_data.dataset import WindowDataset
from teleop_data.parts import Episodes, Part, with_parts
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Schema
from teleop_data.sole_use import SoleUse
from teleop_data.statistics import buffer_statistics
from teleop_data.windows import split_episodes


@dataclass
class PartConfig:
    """Entries of a stored feature that stand under a name of their own."""

    feature: str = MISSING
    entries: list[int] = MISSING


@dataclass
class DataConfig:
    """What to train on.

    Attributes:
        path: a replay buffer.
        features: its features to use; the first ones observed, the action last.
        angles: entries that are angles in rad, by feature, where the store does not say.
        parts: further features, each some entries of a stored one (see `teleop_data.parts`).
        validation_share: share of episodes held out.
        max_episodes: use only the first so many, None for all.
        encoder: folder that forcing-pretrain wrote; its encoders are frozen, and their features are
            kept in the store. None: encoders are trained with the policy.
        whole_episodes: windows end at each episode's last step only. With a context as long as the
            episodes each is one window, and plans begin anywhere in it.
    """

    path: str = MISSING
    features: list[str] = MISSING
    angles: dict[str, list[int]] = field(default_factory=dict)
    parts: dict[str, PartConfig] = field(default_factory=dict)
    validation_share: float = 0.02
    max_episodes: int | None = None
    encoder: str | None = None
    whole_episodes: bool = False


@dataclass
class TrainConfig:
    """Top node of `configs/train.yaml`; `model` and `planning` go to the constructors they name.

    Attributes:
        start_from: checkpoint folder of the same model, whose weights training begins with
            (fine-tuning); its statistics scale the values. None: weights are drawn from the seed.
    """

    task: str = ""
    start_from: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    model: dict[str, Any] = field(default_factory=dict)
    planning: dict[str, Any] = field(default_factory=dict)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    output_dir: str = MISSING


ConfigStore.instance().store(name="train_schema", node=TrainConfig)


@hydra.main(version_base=None, config_path="configs", config_name="train")
def main(config: TrainConfig) -> None:
    """Train as the config says; exits with a message if it cannot."""
    plain = cast(TrainConfig, OmegaConf.to_object(config))  # type: ignore[arg-type]
    try:
        folder = run(plain, command=shlex.join(["forcing-train", *sys.argv[1:]]))
    except (FileNotFoundError, KeyError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"checkpoint: {folder}")


def run(config: TrainConfig, *, command: str) -> Path:
    """Open the data, describe the model, train; returns the checkpoint's folder.

    Raises:
        InUseError: another training writes to `output_dir`.
    """
    episodes = opened_episodes(config.data)
    schema = episodes.schema.select(config.data.features).with_angles(config.data.angles)
    output_dir = Path(config.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    # of processes that train one policy together only the first writes
    is_main = os.environ.get("RANK", "0") == "0"
    with SoleUse(output_dir) if is_main else nullcontext():
        return _train_on(episodes, schema, config=config, command=command)


def _train_on(episodes: Episodes, schema: Schema, *, config: TrainConfig, command: str) -> Path:
    settings = replace(
        config.training, mixed_precision=chosen_precision(config.training.mixed_precision)
    )
    num_episodes = min(episodes.num_episodes, config.data.max_episodes or episodes.num_episodes)
    training, held_out = split_episodes(
        num_episodes, validation_share=config.data.validation_share, seed=settings.seed
    )
    names = [feature.name for feature in schema.with_role("state", "action")]
    if config.start_from is None:
        statistics = buffer_statistics(episodes, names=names, episodes=training)
    else:
        statistics = read_description(config.start_from).statistics
    model, initial, windows = config.model, None, episodes
    if config.data.encoder is not None:
        encoders = load_encoders(config.data.encoder, schema=schema)
        model = {**model, "camera": encoders.camera}
        initial = encoders.weights()
        windows = encode_episodes(episodes, encoders, store=config.data.path)
    description = ModelDescription(
        model=model,
        planning=config.planning,
        schema=schema,
        task=config.task,
        statistics=statistics,
        novelty=fit_novelty(
            episodes, cameras=[f.name for f in schema.with_role("camera")], episodes=training
        ),
    )
    if config.start_from is not None:
        initial = weights_to_start_from(config.start_from, description, given=initial or {})
    datasets = [
        WindowDataset(
            windows,
            schema=windows.schema.select(config.data.features),
            episodes=part,
            context=config.model["context"],
            horizon=config.model["horizon"],
            only_last=config.data.whole_episodes,
        )
        if len(part)
        else None
        for part in (training, held_out)
    ]
    assert datasets[0] is not None  # a split always leaves a training episode
    provenance = {
        "command": command,
        "version": version("lerobot_policy_diffusion_forcing"),
        "replay_buffer": Path(config.data.path).name,
        "encoder": config.data.encoder and Path(config.data.encoder).name,
        "training_episodes": len(training),
        "held_out_episodes": held_out.tolist(),
        "settings": OmegaConf.to_container(OmegaConf.structured(settings)),
    }
    return train(
        description, datasets[0], datasets[1], initial=initial,
        settings=settings, output_dir=Path(config.output_dir), provenance=provenance,
    )  # fmt: skip


def opened_episodes(config: DataConfig) -> Episodes:
    """The replay buffer with its parts."""
    parts = {
        name: Part(feature=part.feature, entries=tuple(part.entries))
        for name, part in config.parts.items()
    }
    return with_parts(ReplayBuffer.open(config.path), parts)


if __name__ == "__main__":
    main()
