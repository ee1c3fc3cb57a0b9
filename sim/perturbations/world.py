"""Changes of the world itself: things thrown in, a plate before a camera, light, colour, a nudge.

They need a physics that offers them, see `Disturbable`. A change is drawn from the seed, made when
its window begins and undone when it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from sim.perturbations.sources import STREAM, Terms, Truth

MIN_GAP_M = 0.08  # between the middles of distractors, and from them to the task's things


class Scene(Protocol):
    """What may be changed about the pictures of a world. The physics' own reset undoes it all.

    Attributes:
        num_distractors: things that wait out of sight.
    """

    num_distractors: int

    @property
    def table_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Low and high corner (2,) m of where things may lie."""
        ...

    def show_distractor(self, index: int, *, position: np.ndarray, yaw: float) -> None:
        """Put a distractor at `position` (3,) m; it touches nothing and falls nowhere."""
        ...

    def hide_distractors(self) -> None:
        """Take all of them away."""
        ...

    def show_occluder(self, camera: str, *, offset: np.ndarray, share: float) -> None:
        """A plate before `camera`: `offset` (2,) of its middle in half picture sides, -1 to 1;
        `share` of the picture's side."""
        ...

    def hide_occluder(self) -> None:
        """Take the plate away."""
        ...

    def set_light(self, *, brightness: float, tint: np.ndarray) -> None:
        """Scale all light by `brightness` and by `tint` (3,)."""
        ...

    def set_table_color(self, rgb: np.ndarray | None) -> None:
        """Colour the table `rgb` (3,) in 0..1; None is its own colour."""
        ...


@runtime_checkable
class Disturbable(Protocol):
    """A physics whose world may be disturbed.

    Attributes:
        disturbances: what may be changed about the pictures.
        movable_names: things that the task moves.
    """

    disturbances: Scene
    movable_names: tuple[str, ...]

    @property
    def is_in_contact(self) -> bool:
        """Whether the hand touches any of them."""
        ...

    def position(self, name: str) -> np.ndarray:
        """(3,) m of the movable thing `name`."""
        ...

    def nudge(self, name: str, *, velocity: np.ndarray) -> None:
        """Add `velocity` (3,) m/s to the movable thing `name`."""
        ...


class WorldChange(Protocol):
    """One way to change the world; `undo` leaves it as it was before `make`."""

    def make(self, world: Disturbable, rng: np.random.Generator) -> None:
        """Change it, with whatever is drawn from `rng`."""
        ...

    def undo(self, world: Disturbable) -> None:
        """Change it back."""
        ...


class Distractors:
    """Things that have nothing to do with the task lie on the table."""

    def __init__(self, *, num: int = 3) -> None:
        """At most `num` of them, as many as the world has."""
        if num < 1:
            raise ValueError(f"num is {num}, expected at least 1")
        self._num = num

    def make(self, world: Disturbable, rng: np.random.Generator) -> None:
        """Lay them anywhere, apart from each other and from the task's things."""
        scene = world.disturbances
        taken = [world.position(name)[:2] for name in world.movable_names]
        for index in rng.permutation(scene.num_distractors)[: self._num]:
            place = _free_place(*scene.table_bounds, taken=taken, rng=rng)
            taken.append(place)
            yaw = float(rng.uniform(-np.pi, np.pi))
            scene.show_distractor(int(index), position=np.array([*place, 0.0]), yaw=yaw)

    def undo(self, world: Disturbable) -> None:
        """Take them away."""
        world.disturbances.hide_distractors()


class Occluder:
    """A dark plate hangs before one camera."""

    def __init__(self, *, camera: str, share: float = 0.3) -> None:
        """It covers `share` of the area of what `camera` sees."""
        if not 0 < share <= 1:
            raise ValueError(f"share is {share}, expected in (0, 1]")
        self._camera, self._share = camera, float(np.sqrt(share))  # of the picture's side

    def make(self, world: Disturbable, rng: np.random.Generator) -> None:
        """Hang it somewhere within the picture."""
        offset = (1 - self._share) * rng.uniform(-1, 1, size=2)
        world.disturbances.show_occluder(self._camera, offset=offset, share=self._share)

    def undo(self, world: Disturbable) -> None:
        """Take it away."""
        world.disturbances.hide_occluder()


class Light:
    """The lamps are dimmer, or brighter, and tinted."""

    def __init__(self, *, brightness: Sequence[float] = (0.35, 0.6), tint: float = 0.3) -> None:
        """A brightness drawn from (low, high), each colour scaled by 1 - `tint` to 1 + `tint`."""
        low, high = brightness
        if not 0 <= low <= high or not 0 <= tint <= 1:
            raise ValueError(
                f"brightness {brightness}, tint {tint}; expected (low, high) with 0 <= low <= "
                "high, and within [0, 1]"
            )
        self._brightness, self._tint = (low, high), tint

    def make(self, world: Disturbable, rng: np.random.Generator) -> None:
        """Turn the lamps."""
        tint = rng.uniform(1 - self._tint, 1 + self._tint, size=3)
        brightness = float(rng.uniform(*self._brightness))
        world.disturbances.set_light(brightness=brightness, tint=tint)

    def undo(self, world: Disturbable) -> None:
        """Turn them back."""
        world.disturbances.set_light(brightness=1.0, tint=np.ones(3))


class TableColor:
    """The table has another colour."""

    def make(self, world: Disturbable, rng: np.random.Generator) -> None:
        """Any colour, each as likely."""
        world.disturbances.set_table_color(rng.uniform(0.1, 0.9, size=3))

    def undo(self, world: Disturbable) -> None:
        """Its own colour."""
        world.disturbances.set_table_color(None)


class Nudge:
    """Something hits one of the task's things. What it did stays done."""

    def __init__(self, *, speed: float = 0.8) -> None:
        """It gains `speed` m/s in some level direction."""
        if speed <= 0:
            raise ValueError(f"speed is {speed}, expected above 0")
        self._speed = speed

    def make(self, world: Disturbable, rng: np.random.Generator) -> None:
        """Hit one of them."""
        name = world.movable_names[int(rng.integers(len(world.movable_names)))]
        angle = rng.uniform(0, 2 * np.pi)
        velocity = self._speed * np.array([np.cos(angle), np.sin(angle), 0.0])
        world.nudge(name, velocity=velocity)

    def undo(self, world: Disturbable) -> None:
        """Nothing: it moves as it moves."""


# the classes above, made with the options as keywords
WORLD_KINDS: Mapping[str, Callable[..., WorldChange]] = {
    "distractors": Distractors,
    "occluder": Occluder,
    "light": Light,
    "table_color": TableColor,
    "nudge": Nudge,
}


class WorldPerturbation:
    """A changed world over one window an episode. Holds one episode's state.

    Attributes:
        terms: what it is; its sources are the cameras whose pictures it makes untrustworthy.
        window: of this episode; whoever drives advances it before `disturb`.
    """

    def __init__(self, terms: Terms) -> None:
        """ValueError if an option is out of range."""
        self.terms = terms
        self._change = WORLD_KINDS[terms.kind](**terms.options)
        self.reset(0)

    def reset(self, seed: int, *, rank: int = 0) -> None:
        """Begin the episode of `seed`, in a world whose reset has undone everything."""
        self.window = self.terms.draw_window(seed, rank=rank)
        self._rng = np.random.default_rng([STREAM + rank, seed, 0])
        self._is_made = False

    def disturb(self, world: Disturbable) -> bool:
        """Make or undo the change if it is time; whether `world` was touched."""
        if self._is_made == self.window.is_active:
            return False
        self._is_made = self.window.is_active
        if self._is_made:
            self._change.make(world, self._rng)
        else:
            self._change.undo(world)
        return True

    @property
    def truth(self) -> Truth:
        """The level of each of its sources now."""
        return dict.fromkeys(self.terms.sources, self.terms.level * self.window.is_active)


def _free_place(
    low: np.ndarray, high: np.ndarray, *, taken: Sequence[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """(2,) m between `low` and `high`, away from the places `taken` if there is room."""
    place = rng.uniform(low, high)
    for _ in range(100):
        if all(np.linalg.norm(place - other) >= MIN_GAP_M for other in taken):
            break
        place = rng.uniform(low, high)
    return place
