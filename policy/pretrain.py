"""Entry point `forcing-pretrain`: picture encoders for training on features (`data.encoder`).

    forcing-pretrain data.path=<store.zarr> output_dir=<folder>

The same command again goes on where the run was cut off.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from policy.construction import build_cameras
from policy.frozen_encoder import save_encoders
from policy.precision import chosen_precision
from policy.pretraining import pretrain
from policy.train import DataConfig, opened_episodes
from policy.training import TrainingSettings
from teleop_data.dataset import WindowDataset
from teleop_data.statistics import buffer_statistics
from teleop_data.windows import split_episodes


@dataclass
class PretrainConfig:
    """Top node of `configs/pretrain.yaml`.

    Attributes:
        data: `features` are the cameras, then the targets, then the action.
        camera: how each camera's encoder is built, as in a model.
        reconstruction: weight of the pictures' error beside the targets'.
        training: as for a policy.
        output_dir: the encoder folder.
    """

    data: DataConfig = field(default_factory=DataConfig)
    camera: dict[str, Any] = field(default_factory=dict)
    reconstruction: float = 1.0
    training: TrainingSettings = field(default_factory=TrainingSettings)
    output_dir: str = MISSING


ConfigStore.instance().store(name="pretrain_schema", node=PretrainConfig)


@hydra.main(version_base=None, config_path="configs", config_name="pretrain")
def main(config: PretrainConfig) -> None:
    """Pre-train as the config says."""
    plain = cast(PretrainConfig, OmegaConf.to_object(config))  # type: ignore[arg-type]
    try:
        errors = run(plain, command=shlex.join(["forcing-pretrain", *sys.argv[1:]]))
    except (KeyError, ValueError) as error:
        sys.exit(f"error: {error}")
    for name, rms in errors.items():
        print(f"{name}: root mean squared errors of the targets, held out: {rms}")
    print(f"encoders: {plain.output_dir}")


def run(config: PretrainConfig, *, command: str) -> dict[str, list[float]]:
    """Train the encoders and write their folder; the targets' held-out errors by camera."""
    episodes = opened_episodes(config.data)
    schema = episodes.schema.select(config.data.features)
    settings = replace(
        config.training, mixed_precision=chosen_precision(config.training.mixed_precision)
    )
    targets = [feature.name for feature in schema.with_role("state")]
    if not schema.with_role("camera") or not targets:
        raise ValueError(f"pre-training needs a camera and a target, got {config.data.features}")
    num_episodes = min(episodes.num_episodes, config.data.max_episodes or episodes.num_episodes)
    training, held_out = split_episodes(
        num_episodes, validation_share=config.data.validation_share, seed=settings.seed
    )
    if not len(held_out):
        raise ValueError("pre-training needs held-out episodes: raise data.validation_share")
    datasets = [
        WindowDataset(episodes, schema=schema, episodes=part, context=1, horizon=1)
        for part in (training, held_out)
    ]
    output_dir = Path(config.output_dir)
    pretrained = pretrain(
        build_cameras(config.camera, schema=schema),
        *datasets,
        targets=buffer_statistics(episodes, names=targets, episodes=training),
        settings=settings,
        reconstruction=config.reconstruction,
        output_dir=output_dir,
    )
    provenance = {
        "command": command,
        "version": version("lerobot_policy_diffusion_forcing"),
        "replay_buffer": Path(config.data.path).name,
        "training_episodes": len(training),
        "settings": OmegaConf.to_container(OmegaConf.structured(settings)),
    }
    save_encoders(
        output_dir, pretrained, camera=config.camera, schema=schema, provenance=provenance
    )
    return pretrained.errors


if __name__ == "__main__":
    main()
