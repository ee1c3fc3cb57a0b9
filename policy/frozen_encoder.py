"""Encoders trained beforehand: their folder, and their features kept beside the pictures.

    encoder folder   config.json         how each camera's encoder is built, what it was trained on
                     model.safetensors   weights, mean and deviation of the features

    store            features/<fingerprint>/<camera>   (N, F) float16, one row a control step

The features are made once by `encode_episodes`, whatever the number of policies that train on them;
the fingerprint is that of the weights, so features of another encoder never pass for these.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from policy.construction import build_cameras
from policy.observation_encoder import CameraEncoder
from policy.pretraining import Pretrained
from teleop_data.parts import Episodes, Rows
from teleop_data.schema import Feature, Schema
from teleop_data.sole_use import SoleUse

ENCODED_AT_ONCE = 256  # pictures
IS_DONE = "is_done"


class EncoderError(ValueError):
    """A folder that holds no encoders, or encoders of other cameras."""


@dataclass(frozen=True, kw_only=True)
class FrozenEncoders:
    """Encoders by camera, as a checkpoint needs them.

    Attributes:
        camera: the model's `camera` node, with `is_frozen`.
        cameras: the encoders.
        fingerprint: of their weights, 12 hexadecimal digits.
    """

    camera: dict[str, Any]
    cameras: dict[str, CameraEncoder]
    fingerprint: str

    def weights(self) -> dict[str, Tensor]:
        """As they stand in the state of a model that holds them."""
        return dict(nn.ModuleDict({"cameras": nn.ModuleDict(self.cameras)}).state_dict())


def save_encoders(
    folder: Path,
    pretrained: Pretrained,
    *,
    camera: Mapping[str, Any],
    schema: Schema,
    provenance: Mapping[str, Any],
) -> None:
    """Write the encoder folder; `config.json` comes last, so a folder that has it is whole."""
    weights: dict[str, Tensor] = {}
    for name, encoder in pretrained.cameras.items():
        weights |= {f"cameras.{name}.{key}": value for key, value in encoder.state_dict().items()}
        mean, std = pretrained.moments[name]
        weights |= {f"cameras.{name}.feature_mean": mean, f"cameras.{name}.feature_std": std}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "model.safetensors")
    config = {
        "camera": {**camera, "is_frozen": True},
        "schema": schema.to_json(),
        "errors": pretrained.errors,
        "provenance": dict(provenance),
    }
    partial = folder / "config.json.partial"
    partial.write_text(json.dumps(config, indent=2) + "\n")
    os.replace(partial, folder / "config.json")


def load_encoders(folder: str | Path, *, schema: Schema) -> FrozenEncoders:
    """The encoders of the schema's cameras.

    Raises:
        EncoderError: the folder is none, is broken, or lacks a camera as the schema has it.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text())
        weights = load_file(folder / "model.safetensors")
    except (OSError, json.JSONDecodeError, SafetensorError) as error:
        raise EncoderError(
            f"{folder} holds no encoders ({error}); forcing-pretrain writes such a folder"
        ) from error
    known = Schema.from_json(config["schema"])
    for feature in schema.with_role("camera"):
        if feature.name not in known.names or known[feature.name].shape != feature.shape:
            have = ", ".join(f"{f.name} {f.shape}" for f in known.with_role("camera"))
            raise EncoderError(
                f"no encoder of camera {feature.name!r} {feature.shape} in {folder}; have: {have}"
            )
    cameras = build_cameras(config["camera"], schema=schema)
    wanted = nn.ModuleDict({"cameras": nn.ModuleDict(cameras)})
    wanted.load_state_dict({k: v for k, v in weights.items() if k.split(".")[1] in cameras})
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return FrozenEncoders(
        camera=config["camera"], cameras={n: c.eval() for n, c in cameras.items()},
        fingerprint=digest[:12],
    )  # fmt: skip


class EncodedEpisodes:
    """Episodes in which every camera is replaced by its features. See `encode_episodes`."""

    def __init__(self, episodes: Episodes, features: Mapping[str, np.ndarray]) -> None:
        """`features` are (N, F) float32 by camera."""
        self._episodes, self._features = episodes, features
        self.schema = replace(
            episodes.schema, features=tuple(map(self._encoded, episodes.schema.features))
        )

    def _encoded(self, feature: Feature) -> Feature:
        if feature.name not in self._features:
            return feature
        size = self._features[feature.name].shape[1]
        return Feature(name=feature.name, shape=(size,), role="state")

    @property
    def episode_ends(self) -> np.ndarray:
        """(E,) one past each episode's last row."""
        return self._episodes.episode_ends

    @property
    def episode_starts(self) -> np.ndarray:
        """(E,) each episode's first row."""
        return self._episodes.episode_starts

    @property
    def num_episodes(self) -> int:
        """E."""
        return self._episodes.num_episodes

    def __getitem__(self, name: str) -> Rows:
        return self._features[name] if name in self._features else self._episodes[name]


def encode_episodes(
    episodes: Episodes, encoders: FrozenEncoders, *, store: str | Path
) -> EncodedEpisodes:
    """The episodes with features for pictures; made now if `store` does not hold them yet."""
    root = zarr.open_group(store, mode="a")
    folder, features = Path(store, "features"), {}
    is_local = Path(store).is_dir()
    if is_local:
        folder.mkdir(exist_ok=True)
    # a second training waits, and finds them; two must not make the group at once, either
    with SoleUse(folder, waits=True) if is_local else nullcontext():
        group = root.require_group(f"features/{encoders.fingerprint}")
        for name, encoder in encoders.cameras.items():
            features[name] = _encoded(encoder, episodes[name], name=name, group=group)
    return EncodedEpisodes(episodes, features)


def _encoded(encoder: CameraEncoder, pictures: Rows, *, name: str, group: zarr.Group) -> np.ndarray:
    """(N, F) features of `pictures`, kept in `group` as `name`."""
    kept = group.get(name)
    if not isinstance(kept, zarr.Array) or kept.attrs.get(IS_DONE) != len(pictures):
        values = encode_rows(encoder, pictures).astype(np.float16)
        kept = group.create_array(name, data=values, overwrite=True)
        kept.attrs[IS_DONE] = len(pictures)
    return np.asarray(kept[:], np.float32)


@torch.inference_mode()
def encode_rows(encoder: CameraEncoder, pictures: Rows) -> np.ndarray:
    """(N, F) features of the pictures (N, H, W, 3)."""
    blocks = []
    for first in range(0, len(pictures), ENCODED_AT_ONCE):
        block = torch.from_numpy(np.asarray(pictures[first : first + ENCODED_AT_ONCE]))
        blocks.append(encoder(block.unsqueeze(1)).squeeze(1).numpy())
    return np.concatenate(blocks)
