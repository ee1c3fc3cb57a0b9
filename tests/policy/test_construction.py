"""From plain dicts to models; nothing outside the package can be named."""

from __future__ import annotations

import pytest

from policy.construction import build, build_model
from policy.planning import RollingPlanning
from policy.scheduling_matrix import Staircase
from tests.policy.tiny_models import FULL_SCHEMA, ROLLING, SCHEMA, description, statistics


def test_nested_targets() -> None:
    built = build({"a": [ROLLING, 3], "b": {"c": None}})
    expected = RollingPlanning(staircase=Staircase(ramp=3), cold_calls=3)
    assert built == {"a": (expected, 3), "b": {"c": None}}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("os.system", "lies outside the package 'policy'"),
        ("policyx.planning.ChunkPlanning", "lies outside the package 'policy'"),
        ("ChunkPlanning", "lies outside the package 'policy'"),
        ("policy.planning.NoPlanning", "no such _target_"),
        ("policy.no_module.Thing", "no such _target_"),
        ("policy.construction.importlib.import_module", "no such _target_"),
        ("policy.checkpoint.save_checkpoint", "not a class of the module 'policy.checkpoint'"),
        ("policy.checkpoint.Path", "not a class of the module 'policy.checkpoint'"),
    ],
)
def test_targets_that_are_refused(target: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build({"_target_": target, "folder": "x"})
    assert repr(target) in str(caught.value)


def test_arguments_that_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ChunkPlanning refuses \['speed'\]: .*'speed'"):
        build({"_target_": "policy.planning.ChunkPlanning", "speed": 3})


def model(schema=SCHEMA, *, without: str | None = None, **config):
    full = {**description(schema).model, **config}
    full.pop(without, None)
    sizes = {f.name: f.shape[0] for f in schema.with_role("state", "action")}
    return build_model(
        full, schema=schema, statistics={name: statistics(size) for name, size in sizes.items()}
    )


def test_sources_in_the_schemas_order() -> None:
    built = model(FULL_SCHEMA)
    assert built.source_names == ["front", "state", "action"]
    assert built.denoiser.source_sizes == [16, 4, 2]  # an angle counts twice
    assert (built.horizon, built.context, built.denoiser.memory) == (6, 4, 3)


def test_unknown_and_missing_keys_are_named() -> None:
    with pytest.raises(ValueError, match=r"unknown model keys \['horizont'\]; have .*'horizon'"):
        model(horizont=4)
    with pytest.raises(ValueError, match=r"lacks \['denoiser'\]"):
        model(without="denoiser")
    with pytest.raises(ValueError, match="schema has camera 'front'; choose a model with a camera"):
        model(FULL_SCHEMA, camera=None)
    with pytest.raises(ValueError, match=r"no statistics of \['state'\]; have \['action'\]"):
        build_model(description().model, schema=SCHEMA, statistics={"action": statistics(2)})
