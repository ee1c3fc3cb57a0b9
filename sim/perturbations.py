"""Perturbations: sources that go bad for a while, and an oracle that knows.

    step     0 . . . start . . . . end . . .
    source   good    |   bad      |   good        truth 0 0 0 1 1 1 1 0 0 0

A perturbation stands between an environment and who acts on its observations. It holds one
episode's state, so a batch of episodes in lock-step uses one object each. The bad window and every
random draw are a function of the seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from sim.corruptions import Black, Corruption, Dropped, Frozen, Late, Noise, Patch
from teleop_data.environment import Observation
from teleop_data.schema import Feature, Schema

Truth = dict[str, float]  # perturbed source -> 1 while what it delivers is bad, else 0
Maker = Callable[[Feature, np.random.Generator], Corruption]

_STREAM = 7_303  # sets our draws apart from the environment's, which uses the same seed


class Perturbation:
    """Faults of some sources over one window of control steps an episode."""

    def __init__(
        self,
        make: Maker | None,
        *,
        schema: Schema,
        sources: Iterable[str] | None = None,
        start: tuple[int, int] = (0, 0),
        length: int | None = None,
    ) -> None:
        """See `perturbation`; `make` gives each source its corruption, None leaves all alone.

        Raises:
            KeyError: a source is not an observed feature.
            ValueError: the window is impossible, or a source cannot go bad in this way.
        """
        first, last = start
        if not 0 <= first <= last:
            raise ValueError(f"start is {start}, expected (first, last) with 0 <= first <= last")
        if length is not None and length < 1:
            raise ValueError(f"length is {length}, expected at least 1, or None for 'to the end'")
        self._make, self._start, self._length = make, (int(first), int(last)), length
        self._features = _chosen(schema, sources)
        self.reset(0)

    @property
    def sources(self) -> tuple[str, ...]:
        """The perturbed features."""
        return tuple(feature.name for feature in self._features)

    def reset(self, seed: int) -> None:
        """Begin the episode of `seed`: draw its bad window and forget the past."""
        first, last = self._start
        begin = int(np.random.default_rng([_STREAM, seed]).integers(first, last + 1))
        self.window = (begin, None if self._length is None else begin + self._length)
        self._next_step = 0
        self._corruptions: dict[str, Corruption] = {}
        for index, feature in enumerate(self._features):
            if self._make is not None:
                rng = np.random.default_rng([_STREAM, seed, index])
                self._corruptions[feature.name] = self._make(feature, rng)

    def is_bad(self, step: int) -> bool:
        """Whether `step` lies in this episode's bad window."""
        begin, end = self.window
        return self._make is not None and begin <= step and (end is None or step < end)

    def age_steps(self, name: str) -> int:
        """Age of what `apply` gave last for source `name`, in control steps, as its capture time
        would tell; a frozen or covered camera's pictures are new ones."""
        corruption = self._corruptions.get(name)
        return corruption.age_steps if isinstance(corruption, Late) else 0

    def apply(self, step: int, observation: Observation) -> tuple[dict[str, np.ndarray], Truth]:
        """What arrives at control step `step` in place of `observation`, and the truth about it.

        Dropped sources are absent from the answer; other sources are handed through, the same
        objects. A source whose value is still the true one (frozen or late at step 0) is not bad.

        Raises:
            ValueError: a step is left out or repeated: a frozen source needs each, in order.
        """
        if step != self._next_step:
            raise ValueError(
                f"got step {step}, expected {self._next_step}: apply every control step once, in "
                "order, after reset(seed)"
            )
        self._next_step += 1
        arrived, truth = dict(observation), dict.fromkeys(self.sources, 0.0)
        for name, corruption in self._corruptions.items():
            value = corruption.deliver(observation[name], is_bad=self.is_bad(step))
            truth[name] = float(value is not observation[name])
            if value is None:
                del arrived[name]
            else:
                arrived[name] = value
        return arrived, truth


def perturbation(
    name: str,
    *,
    schema: Schema,
    sources: Iterable[str] | None = None,
    start: tuple[int, int] = (0, 0),
    length: int | None = None,
    std: float | Sequence[float] = 64.0,
    share: float = 0.5,
    speed: float = 0.0,
    delay: int = 5,
) -> Perturbation:
    """The perturbation `name`, ready for `reset(seed)`; one object per episode at a time.

    Args:
        name: none, black, frozen, noise, patch, dropped or late.
        schema: of the environment.
        sources: names of the features that go bad; None means the cameras, or, where there is no
            camera, every observed feature.
        start: (first, last), both included: the window begins at a step drawn uniformly from them.
        length: control steps of the window; None means to the end of the episode.
        std: noise only; standard deviation in the feature's unit (grey levels for cameras),
            one for all entries or one for each.
        share: patch only; its height and width as a share of the picture's, in (0, 1].
        speed: patch only; pixels a control step, 0 is fixed.
        delay: late only; age of what arrives, in control steps, at least 1.

    Raises:
        KeyError: a source is not an observed feature.
        ValueError: the name is unknown, an option is out of range, or a patch is asked of a source
            that is no camera.
    """
    if np.any(np.less(std, 0)) or speed < 0 or not 0 < share <= 1 or delay < 1:
        raise ValueError(
            f"std {std}, speed {speed}, share {share}, delay {delay}; expected std and speed at "
            "least 0, share in (0, 1], delay at least 1"
        )
    makers: dict[str, Maker | None] = {
        "none": None,
        "black": lambda feature, rng: Black(),
        "frozen": lambda feature, rng: Frozen(),
        "noise": lambda feature, rng: Noise(std=std, rng=rng),
        "patch": lambda feature, rng: Patch(_camera(feature), share=share, speed=speed, rng=rng),
        "dropped": lambda feature, rng: Dropped(),
        "late": lambda feature, rng: Late(delay=delay),
    }
    if name not in makers:
        raise ValueError(f"no perturbation {name!r}; have: {', '.join(makers)}")
    return Perturbation(makers[name], schema=schema, sources=sources, start=start, length=length)


def _camera(feature: Feature) -> Feature:
    if feature.role != "camera":
        raise ValueError(
            f"a patch covers part of a picture; {feature.name!r} is no camera: use black, frozen, "
            "noise, dropped or late there"
        )
    return feature


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
