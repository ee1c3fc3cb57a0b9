"""Perturbations: what goes wrong for a while, by name.

    of sources   black, frozen, noise, recolored, patch, swapped, dropped, late    any environment
    of actions   action_latency                                                    any environment
    of the world distractors, occluder, light, table_color, nudge      a physics that offers them

A perturbation stands between an environment and who acts in it; `PerturbedEnvironment` puts it
there. It holds one episode's state, so a batch of episodes in lock-step uses one object each. Its
window and every random draw are a function of the seed alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sim.perturbations.action_latency import ActionLatency
from sim.perturbations.corruptions import Late
from sim.perturbations.sources import SOURCE_KINDS, SourcePerturbation, Terms
from sim.perturbations.window import Duration, Phase, WindowRule, control_steps
from sim.perturbations.world import WORLD_KINDS, WorldPerturbation
from teleop_data.schema import Feature, Schema

Perturbation = SourcePerturbation | ActionLatency | WorldPerturbation

KINDS: dict[str, Callable[..., Any]] = {
    **SOURCE_KINDS,
    "action_latency": Late,
    **WORLD_KINDS,
}


def perturbation(
    kind: str,
    *,
    schema: Schema,
    sources: Iterable[str] | None = None,
    num_sources: int | None = None,
    start: Sequence[Duration] = (0, 0),
    length: Duration | None = None,
    phase: Phase = "anytime",
    offset: Sequence[Duration] = (0, 0),
    level: float = 1.0,
    **options: Any,
) -> Perturbation:
    """The perturbation `kind`, ready for `reset(seed)`; one object per episode at a time.

    Args:
        kind: see the top of this file.
        schema: of the environment, or of what the policy sees of it.
        sources: names of the features that go bad; None means the cameras, or, where there is no
            camera, every observed feature. An occluder takes one camera: the first, if None.
        num_sources: how many of them go bad in an episode, drawn anew each time; None means all.
        start, length, phase, offset: when, see `WindowRule`; durations are control steps, or
            seconds as "0.5 s".
        level: noise level that an oracle gives a bad source.
        options: of that kind: the keyword arguments of its class in `corruptions` or `world`.

    Raises:
        KeyError: a source is not an observed feature.
        ValueError: the kind or an option is unknown, a number is out of range, the window is
            impossible, or a source cannot go bad in this way.
    """
    if kind not in KINDS:
        raise ValueError(f"no perturbation {kind!r}; have: {', '.join(KINDS)}")
    rule = WindowRule(
        start=_steps(start, schema=schema),
        length=None if length is None else control_steps(length, rate_hz=schema.rate_hz),
        phase=phase,
        offset=_steps(offset, schema=schema),
    )
    features = _affected(kind, schema, sources)
    options = _complete(kind, options)
    if num_sources is not None and kind not in SOURCE_KINDS:
        raise ValueError(f"num_sources is for faults of sources, not for {kind}")
    if kind == "occluder":
        options["camera"] = features[0].name
    names = tuple(feature.name for feature in features)
    terms = Terms(kind=kind, options=options, rule=rule, sources=names, level=level)
    if kind in SOURCE_KINDS:
        return SourcePerturbation(terms, features=features, num_sources=num_sources)
    if kind in WORLD_KINDS:
        return WorldPerturbation(terms)
    return ActionLatency(terms, action=schema.action)


def _steps(durations: Sequence[Duration], *, schema: Schema) -> tuple[int, int]:
    if len(durations) != 2:
        raise ValueError(f"got {list(durations)}, expected [first, last]")
    first, last = (control_steps(d, rate_hz=schema.rate_hz) for d in durations)
    return first, last


def _complete(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """`options` with the defaults of those not given. ValueError if one is unknown."""
    parameters = inspect.signature(KINDS[kind]).parameters.values()
    keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    keywords.pop("camera", None)  # an occluder's source
    if unknown := sorted(set(options) - set(keywords)):
        raise ValueError(f"{kind} has no option {unknown}; have: {', '.join(keywords) or 'none'}")
    return {**keywords, **options}


def _affected(kind: str, schema: Schema, sources: Iterable[str] | None) -> tuple[Feature, ...]:
    """The features about which `kind` tells the truth."""
    if kind in ("nudge", "action_latency"):
        if sources is not None:
            raise ValueError(f"{kind} spoils no source; leave sources out")
        return ()
    if kind not in WORLD_KINDS:
        return _chosen(schema, sources)
    cameras = schema.with_role("camera")
    chosen = cameras[: 1 if kind == "occluder" else None] if sources is None else None
    chosen = _chosen(schema, sources) if chosen is None else chosen
    if kind == "occluder" and len(chosen) != 1 or not set(chosen) <= set(cameras):
        raise ValueError(
            f"{kind} with sources {[f.name for f in chosen]}; expected "
            f"{'one camera' if kind == 'occluder' else 'cameras'} of "
            f"{[camera.name for camera in cameras]}"
        )
    return chosen


def _chosen(schema: Schema, sources: Iterable[str] | None) -> tuple[Feature, ...]:
    """The features named by `sources`, or the default ones."""
    if sources is None:
        return schema.with_role("camera") or schema.observed
    observed = {feature.name: feature for feature in schema.observed}
    chosen = tuple(sources)
    unknown = [name for name in chosen if name not in observed]
    if unknown:
        raise KeyError(f"no observed feature {unknown}; have: {', '.join(observed)}")
    return tuple(observed[name] for name in chosen)
