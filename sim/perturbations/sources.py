"""Faults of what the policy sees: sources that go bad for a while, and an oracle that knows.

step     0 . . . begin . . . . end . . .
source   good    |   bad      |   good        truth 0 0 0 1 1 1 1 0 0 0
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sim.perturbations.corruptions import (
    Black,
    Corruption,
    Dropped,
    Frozen,
    Late,
    Noise,
    Patch,
    Recolored,
    Swapped,
)
from sim.perturbations.window import Window, WindowRule
from teleop_data.environment import Observation
from teleop_data.schema import Feature

Truth = dict[str, float]  # perturbed source -> noise level it deserves now, 0 while it is good

STREAM = 7_303  # sets our draws apart from the environment's, which uses the same seed

# classes of `sim.perturbations.corruptions`, made with (feature, rng) and the options as keywords
SOURCE_KINDS: Mapping[str, Callable[..., Corruption]] = {
    "black": Black,
    "frozen": Frozen,
    "noise": Noise,
    "recolored": Recolored,
    "patch": Patch,
    "swapped": Swapped,
    "dropped": Dropped,
    "late": Late,
}


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What is common to all perturbations.

    Attributes:
        kind: such as "black".
        options: of that kind, JSON-ready.
        rule: when it is active.
        sources: features about which it tells the truth.
        level: noise level that an oracle gives a source while it is bad.
    """

    kind: str
    options: Mapping[str, Any]
    rule: WindowRule
    sources: tuple[str, ...]
    level: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.level <= 1:
            raise ValueError(f"level is {self.level}, expected within [0, 1]")

    def draw_window(self, seed: int, *, rank: int) -> Window:
        """The window of the episode of `seed`; `rank` tells perturbations of one episode apart."""
        return Window(self.rule, rng=np.random.default_rng([STREAM + rank, seed]))

    def to_json(self) -> dict[str, Any]:
        """All of it, JSON-ready; ranges of control steps are [first, last]."""
        return {
            "kind": self.kind,
            "options": dict(self.options),
            "sources": list(self.sources),
            "level": self.level,
            **asdict(self.rule),
        }


class SourcePerturbation:
    """Faults of some sources over one window an episode. Holds one episode's state.

    Attributes:
        terms: what it is.
        window: of this episode; whoever drives advances it before `apply`.
    """

    def __init__(
        self, terms: Terms, *, features: tuple[Feature, ...], num_sources: int | None = None
    ) -> None:
        """Spoil `features`, or each episode `num_sources` of them, drawn anew.

        Raises:
            ValueError: a source cannot go bad in this way, or there are too few to draw from.
        """
        if num_sources is not None and not 0 < num_sources < len(features):
            raise ValueError(
                f"num_sources is {num_sources} of {[f.name for f in features]}; expected at least "
                "1 and fewer than there are"
            )
        self.terms, self._features, self._num_sources = terms, features, num_sources
        self._partners = swapped_pair(features) if terms.kind == "swapped" else {}
        self.reset(0)

    def reset(self, seed: int, *, rank: int = 0) -> None:
        """Begin the episode of `seed`: draw its window and forget the past."""
        self.window = self.terms.draw_window(seed, rank=rank)
        self._corruptions: dict[str, Corruption] = {}
        num = len(self._features)
        chosen = set(range(num))
        if self._num_sources is not None:
            rng = np.random.default_rng([STREAM + rank, seed, num])
            chosen = set(rng.choice(num, size=self._num_sources, replace=False).tolist())
        for index in sorted(chosen):
            rng = np.random.default_rng([STREAM + rank, seed, index])
            feature = self._features[index]
            make = SOURCE_KINDS[self.terms.kind]
            self._corruptions[feature.name] = make(feature, rng, **self.terms.options)

    def apply(self, observation: Observation) -> tuple[dict[str, np.ndarray], Truth]:
        """What arrives in place of `observation`, and the truth about it; once a control step.

        Dropped sources are absent from the answer; other sources are handed through, the same
        objects. A source whose value is still the true one (frozen or late at step 0) is not bad.
        """
        arrived, truth = dict(observation), dict.fromkeys(self.terms.sources, 0.0)
        is_bad = self.window.is_active
        for name, corruption in self._corruptions.items():
            read = self._partners.get(name, name) if is_bad else name
            value = corruption.deliver(observation.get(read), is_bad=is_bad)
            truth[name] = self.terms.level * (value is not observation.get(name))
            if value is not None:
                arrived[name] = value
            else:
                arrived.pop(name, None)
        return arrived, truth

    @property
    def spoiled(self) -> tuple[str, ...]:
        """The sources that go bad in this episode, of all those that may."""
        return tuple(self._corruptions)

    def age_steps(self, name: str) -> int:
        """Age of what `apply` gave last for source `name`, in control steps, as its capture time
        would tell; a frozen or covered camera's pictures are new ones."""
        corruption = self._corruptions.get(name)
        return corruption.age_steps if isinstance(corruption, Late) else 0


def swapped_pair(features: tuple[Feature, ...]) -> dict[str, str]:
    """Each of two cameras with the other. ValueError if they are not two, or of different shape."""
    shapes = {feature.name: feature.shape for feature in features}
    if len(shapes) != 2 or len(set(shapes.values())) != 1:
        raise ValueError(
            f"two cameras of one shape can swap their feeds, got {shapes}; name them with sources="
        )
    one, other = shapes
    return {one: other, other: one}
