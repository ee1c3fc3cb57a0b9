"""PerturbedEnvironment: any environment under perturbations, with the truth about them.

action --latency--> environment --world changes--> observation --faults of sources--> who acts
                                                         |
                                         sight, labels, facts: what was true
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np

from sim.environment import checked_action
from sim.perturbations.action_latency import ActionLatency
from sim.perturbations.kinds import Perturbation
from sim.perturbations.sources import SourcePerturbation, Truth
from sim.perturbations.world import Disturbable, WorldPerturbation
from teleop_data.environment import Environment, Labelled, Observation, StepResult
from teleop_data.schema import Feature, Schema


@dataclass(frozen=True, kw_only=True)
class Sight:
    """One control step as a perturbed episode knows it.

    Attributes:
        true: the observation of the world as it is, changes of the world included.
        arrived: what is left of it; a source from which nothing arrived is absent.
        truth: by perturbed source, the noise level it deserves; above 0 means bad.
        ages: by perturbed source, age of what arrived in control steps.
        is_world_perturbed: whether the world was changed, or does not do what it is told at once.
    """

    true: Observation
    arrived: Observation
    truth: Mapping[str, float]
    ages: Mapping[str, int]
    is_world_perturbed: bool


class PerturbedEnvironment:
    """An Environment that perturbs another and is `Labelled` with the truth.

    Observations stay on schema: a source from which nothing arrives is all zeros, which no working
    source is, and the label `missing_<source>` says so. Who can do without a source reads `sight`.

    Labels, at every control step: `bad_<source>` and `missing_<source>` for every source of a
    perturbation, and `world_is_perturbed`. Fact: `perturbations`, with each one's window.

    Attributes:
        sight: of the newest observation.
    """

    sight: Sight

    def __init__(
        self, environment: Environment, perturbations: Iterable[Perturbation] = ()
    ) -> None:
        """Perturb `environment`. Those of sources work one after the other, in the order given.

        Raises:
            ValueError: the environment's world does not offer what a perturbation needs, or two of
                them change the same thing in it.
        """
        self._environment = environment
        self._perturbations = tuple(perturbations)
        self._of_sources = [p for p in self._perturbations if isinstance(p, SourcePerturbation)]
        self._of_world = [p for p in self._perturbations if isinstance(p, WorldPerturbation)]
        self._of_actions = [p for p in self._perturbations if isinstance(p, ActionLatency)]
        self._sources = tuple(
            dict.fromkeys(name for p in self._perturbations for name in p.terms.sources)
        )
        self._touches: Callable[[], bool] = lambda: False
        if any(p.terms.rule.phase != "anytime" for p in self._perturbations):
            self._touches = touch_sensor(environment)
        if self._of_world:
            _check_kinds_differ(self._of_world)
            self._world, self._look = disturbable_world(environment)
        self._step: int | None = None  # None before the first reset

    @property
    def schema(self) -> Schema:
        """The environment's own."""
        return self._environment.schema

    @property
    def max_steps(self) -> int:
        """Control steps after which an episode counts as over."""
        return self._environment.max_steps

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        """Start the episode that `seed` determines, its perturbations included."""
        observation = self._environment.reset(seed)
        for rank, perturbation in enumerate(self._perturbations):
            perturbation.reset(seed, rank=rank)
        self._step = 0
        return self._perceive(observation)

    def step(self, action: np.ndarray) -> StepResult:
        """Tell the world `action` (A,), which may execute an older one, for one control step.

        Raises:
            RuntimeError: before the first reset.
            ValueError: the action is misshapen or not finite. The world has not moved then.
        """
        if self._step is None:
            raise RuntimeError("step before reset: call reset(seed) first")
        executed = checked_action(action, self.schema.action)
        for perturbation in self._of_actions:
            executed = perturbation.command(executed)
        result = self._environment.step(executed)
        self._step += 1
        return replace(result, observation=self._perceive(result.observation))

    def render(self) -> np.ndarray:
        """A picture for people of the world as it is, (H, W, 3) uint8."""
        return self._environment.render()

    def close(self) -> None:
        """Close the environment; further steps are refused."""
        self._environment.close()
        self._step = None

    @property
    def label_features(self) -> tuple[Feature, ...]:
        """The environment's own, then `bad_` and `missing_` by source, then the world's."""
        own = self._environment
        flags = [
            Feature(name=f"{what}_{name}", shape=(1,), dtype=dtype, role="other")
            for name in self._sources
            for what, dtype in (("bad", "float32"), ("missing", "bool"))
        ]
        world = Feature(name="world_is_perturbed", shape=(1,), dtype="bool", role="other")
        return (*(own.label_features if isinstance(own, Labelled) else ()), *flags, world)

    def labels(self) -> dict[str, np.ndarray]:
        """The truth about the newest observation: `bad_` the noise level that a source deserves."""
        own, sight = self._environment, self.sight
        labels = own.labels() if isinstance(own, Labelled) else {}
        for name in self._sources:
            labels[f"bad_{name}"] = np.array([sight.truth[name]], np.float32)
            labels[f"missing_{name}"] = np.array([name not in sight.arrived])
        return labels | {"world_is_perturbed": np.array([sight.is_world_perturbed])}

    def facts(self) -> dict[str, Any]:
        """The environment's own, and `perturbations`: for each its terms, `window` [begin, end) of
        this episode, null where there was none or none yet, and the sources `spoiled` in it."""
        own = self._environment
        rows = [_facts_of(perturbation) for perturbation in self._perturbations]
        return (own.facts() if isinstance(own, Labelled) else {}) | {"perturbations": rows}

    def _perceive(self, observation: Observation) -> dict[str, np.ndarray]:
        """Perturb the world and then what is seen of it; the observation handed out."""
        assert self._step is not None
        for perturbation in self._perturbations:
            perturbation.window.advance(self._step, touches=self._touches)
        if any([p.disturb(self._world) for p in self._of_world]):  # all of them, hence the list
            observation = self._look()
        arrived, truth = dict(observation), dict.fromkeys(self._sources, 0.0)
        for perturbation in self._of_sources:
            arrived, told = perturbation.apply(arrived)
            truth = _worst(truth, told)
        for perturbation in self._of_world:
            truth = _worst(truth, perturbation.truth)
        self.sight = Sight(
            true=observation,
            arrived=arrived,
            truth=truth,
            ages={n: sum(p.age_steps(n) for p in self._of_sources) for n in self._sources},
            is_world_perturbed=any(
                p.window.is_active for p in (*self._of_world, *self._of_actions)
            ),
        )
        return self._completed(arrived)

    def _completed(self, arrived: Observation) -> dict[str, np.ndarray]:
        """Every observed feature, in memory of its own: faults hand out old values again."""
        return {
            feature.name: np.array(arrived[feature.name])
            if feature.name in arrived
            else np.zeros(feature.shape, feature.dtype)
            for feature in self.schema.observed
        }


class _Observing(Protocol):
    def observe(self) -> Observation: ...


def disturbable_world(
    environment: Environment,
) -> tuple[Disturbable, Callable[[], Observation]]:
    """The world of `environment`, and a function that observes it anew once it was changed.

    Raises:
        ValueError: its physics is not `Disturbable`, or it cannot observe anew.
    """
    physics = getattr(environment, "physics", None)
    if not isinstance(physics, Disturbable) or not hasattr(environment, "observe"):
        raise ValueError(
            f"{_world_of(environment)} cannot be changed from outside: it needs a physics as "
            "sim.perturbations.world.Disturbable and observe(), as the arm's tasks have; what is "
            "seen of it, and actions, can be perturbed"
        )
    return physics, cast(_Observing, environment).observe


def touch_sensor(environment: Environment) -> Callable[[], bool]:
    """Tells whether the hand touches a thing now: `physics.is_in_contact`, or `is_holding` in the
    planar world, where holding is all the touch there is.

    Raises:
        ValueError: the environment's world has neither.
    """
    physics: Any = getattr(environment, "physics", None)
    for name in ("is_in_contact", "is_holding"):
        if isinstance(getattr(physics, name, None), bool | np.bool_):
            return lambda: bool(getattr(physics, name))
    raise ValueError(
        f"{_world_of(environment)} does not tell when the hand touches a thing, which "
        "before_contact and during_contact need: give phase=anytime, or physics.is_in_contact"
    )


def _facts_of(perturbation: Perturbation) -> dict[str, Any]:
    bounds, terms = perturbation.window.bounds, perturbation.terms
    is_of_sources = isinstance(perturbation, SourcePerturbation)
    return {
        **terms.to_json(),
        "window": None if bounds is None else list(bounds),
        "spoiled": list(perturbation.spoiled if is_of_sources else terms.sources),
    }


def _world_of(environment: Environment) -> str:
    physics = getattr(environment, "physics", None)
    return f"the world of {type(environment).__name__} ({type(physics).__name__})"


def _check_kinds_differ(perturbations: list[WorldPerturbation]) -> None:
    """Two of a kind would undo each other's change."""
    kinds = [perturbation.terms.kind for perturbation in perturbations]
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"got {', '.join(kinds)}: a world has one of each kind at a time")


def _worst(truth: Truth, told: Truth) -> Truth:
    return truth | {name: max(truth[name], level) for name, level in told.items()}
