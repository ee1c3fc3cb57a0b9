"""Conditions: the named perturbations of an experiment, one YAML each in sim/configs/perturbation.

Entry points have them as the Hydra group `perturbation`, so that every part can be overridden:

    perturbation=black_2s perturbation.phase=during_contact perturbation.length=0.5s
"""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass, field
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sim.perturbations.environment import PerturbedEnvironment
from sim.perturbations.kinds import Perturbation, perturbation
from sim.perturbations.window import Phase
from teleop_data.environment import Environment
from teleop_data.schema import Schema


@dataclass
class PerturbationConfig:
    """A node of the group `perturbation`. Durations are control steps, or seconds as "0.5 s".

    Attributes:
        name: of the condition.
        kind: see `sim.perturbations.kinds`; "none" perturbs nothing.
        start: [first, last]; the window begins at a step drawn from there.
        length: of the window, null = to the end.
        phase: anytime, before_contact or during_contact, see `sim.perturbations.window`.
        offset: [first, last] after the first contact, for during_contact.
        sources: that go bad; null = the cameras, or all that is observed where there is none.
        num_sources: how many of them in an episode, drawn anew each time; null = all.
        level: noise level that an oracle gives a bad source.
        options: of the kind.
    """

    name: str = "none"
    kind: str = "none"
    start: list[Any] = field(default_factory=lambda: ["0.5 s", "1.5 s"])
    length: Any = "2 s"
    phase: str = "anytime"
    offset: list[Any] = field(default_factory=lambda: [0, 0])
    sources: list[str] | None = None
    num_sources: int | None = None
    level: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name, with the phase where the window waits for contact."""
        is_plain = self.kind == "none" or self.phase == "anytime"
        return self.name if is_plain else f"{self.name}_{self.phase}"


def condition_names() -> list[str]:
    """Names of all conditions there are."""
    folder = importlib.resources.files("sim.configs") / "perturbation"
    files = sorted(path.name for path in folder.iterdir())
    return [name.removesuffix(".yaml") for name in files if name.endswith(".yaml")]


def read_condition(name: str) -> PerturbationConfig:
    """The condition `name` as its YAML says. ValueError if there is none, with those there are."""
    if name not in condition_names():
        raise ValueError(f"no condition {name!r}; have: {', '.join(condition_names())}")
    file = importlib.resources.files("sim.configs") / "perturbation" / f"{name}.yaml"
    try:
        node = OmegaConf.merge(PerturbationConfig, OmegaConf.create(file.read_text()))
    except OmegaConfBaseException as error:
        raise ValueError(f"condition {name!r}: {error}") from error
    return cast(PerturbationConfig, OmegaConf.to_object(node))


def perturbations_of(config: PerturbationConfig, *, schema: Schema) -> tuple[Perturbation, ...]:
    """What `config` asks for, of the observed features of `schema`; nothing for kind "none".

    Raises:
        KeyError: a source is not an observed feature.
        ValueError: something else cannot be, see `sim.perturbations.kinds.perturbation`.
    """
    if config.kind == "none":
        return ()
    if taken := sorted(set(config.options) & {"kind", "schema", *vars(config)}):
        raise ValueError(f"{taken} are no options; give perturbation.{taken[0]}=... instead")
    made = perturbation(
        config.kind,
        schema=schema,
        sources=config.sources,
        num_sources=config.num_sources,
        start=config.start,
        length=config.length,
        phase=cast(Phase, config.phase),
        offset=config.offset,
        level=config.level,
        **config.options,
    )
    return (made,)


def perturbed(environment: Environment, config: PerturbationConfig) -> Environment:
    """`environment` under the condition `config`: itself, if that perturbs nothing.

    Raises:
        KeyError, ValueError: as `perturbations_of`, or the world does not offer what it needs.
    """
    perturbations = perturbations_of(config, schema=environment.schema)
    return PerturbedEnvironment(environment, perturbations) if perturbations else environment
