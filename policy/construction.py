"""From a plain nested dict (a checkpoint's `config.json`, or a composed YAML) to a model.

A node with `_target_` names a class of this package and its arguments; neither a function nor
anything outside the package can be named, so a config from elsewhere cannot run code. Needs no
Hydra.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from policy.baselines.baseline import Baseline
from policy.denoiser import Denoiser
from policy.diffusion_forcing import DiffusionForcing
from policy.normalizer import Normalizer
from policy.observation_encoder import CameraEncoder
from teleop_data.schema import Schema
from teleop_data.statistics import FeatureStatistics


def build(node: Any) -> Any:
    """Instantiate `_target_` nodes inside dicts and lists, inner ones first; the rest stays.

    Raises:
        ValueError: a target outside this package, or one that is no class of the module it names
            or refuses its arguments; the message names it.
    """
    if isinstance(node, Mapping):
        arguments = {key: build(value) for key, value in node.items() if key != "_target_"}
        if "_target_" not in node:
            return arguments
        return _call(str(node["_target_"]), arguments)
    if isinstance(node, list | tuple):
        return tuple(build(value) for value in node)
    return node


def _call(target: str, arguments: dict[str, Any]) -> Any:
    module_name, _, name = target.rpartition(".")
    if module_name.split(".")[0] != "policy":
        raise ValueError(f"_target_ {target!r} lies outside the package 'policy'")
    try:
        constructor = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no such _target_: {target!r} ({error})") from error
    if not isinstance(constructor, type) or constructor.__module__ != module_name:
        raise ValueError(f"_target_ {target!r} is not a class of the module {module_name!r}")
    try:
        return constructor(**arguments)
    except TypeError as error:
        raise ValueError(f"{target} refuses {sorted(arguments)}: {error}") from error


def build_model(
    config: Mapping[str, Any], *, schema: Schema, statistics: Mapping[str, FeatureStatistics]
) -> DiffusionForcing | Baseline:
    """The untrained model that `config` describes, for features of `schema`.

    Args:
        config: keys `horizon`, `context`, `scaling`, `denoiser`, `method`, and `camera` where the
            schema has cameras (one encoder of that description per camera). With the key
            `baseline`, a class of `policy.baselines` and its own arguments, no `denoiser` and
            `method`.
        schema: observed features and the action.
        statistics: of every state and action feature, from the training episodes.
    """
    network = {"baseline"} if "baseline" in config else {"denoiser", "method"}
    known = {"horizon", "context", "scaling", "camera"} | network
    if set(config) - known:
        raise ValueError(f"unknown model keys {sorted(set(config) - known)}; have {sorted(known)}")
    if missing := {"horizon", "context", *network} - {"method"} - set(config):
        raise ValueError(f"the model's description lacks {sorted(missing)}")
    low_dim = schema.with_role("state", "action")
    if missing := {feature.name for feature in low_dim} - set(statistics):
        raise ValueError(f"no statistics of {sorted(missing)}; have {sorted(statistics)}")
    normalizers = {
        f.name: Normalizer(f, statistics[f.name], scaling=config.get("scaling", "range"))
        for f in low_dim
    }
    cameras = build_cameras(config.get("camera"), schema=schema)
    shared = {
        "schema": schema,
        "normalizers": normalizers,
        "cameras": cameras,
        "horizon": config["horizon"],
        "context": config["context"],
    }
    if "baseline" in config:
        return _build_baseline(config["baseline"], shared)
    sizes = [
        cameras[f.name].feature_size if f.role == "camera" else normalizers[f.name].normalized_size
        for f in schema.observed
    ]
    action_size = normalizers[schema.action.name].normalized_size
    denoiser = Denoiser(
        source_sizes=[*sizes, action_size], action_size=action_size, **build(config["denoiser"])
    )
    return DiffusionForcing(denoiser=denoiser, **shared, **build(config.get("method", {})))


def _build_baseline(node: Mapping[str, Any], shared: dict[str, Any]) -> Baseline:
    own = {key: value for key, value in node.items() if key != "_target_"}
    model = _call(str(node.get("_target_")), {**build(own), **shared})
    if not isinstance(model, Baseline):
        raise ValueError(f"{node.get('_target_')} is no baseline; policy.baselines has some")
    return model


def build_cameras(config: Mapping[str, Any] | None, *, schema: Schema) -> dict[str, CameraEncoder]:
    """One encoder as `config` describes it for every camera of the schema, by name."""
    cameras: dict[str, CameraEncoder] = {}
    for feature in schema.with_role("camera"):
        if not config:
            raise ValueError(f"schema has camera {feature.name!r}; choose a model with a camera")
        height, width, _ = feature.shape
        cameras[feature.name] = CameraEncoder(**build(config), image_size=(height, width))
    return cameras
