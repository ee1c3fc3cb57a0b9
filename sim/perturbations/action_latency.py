"""Action latency: the world executes what it was told some control steps ago."""

from __future__ import annotations

import numpy as np

from sim.perturbations.corruptions import Late
from sim.perturbations.sources import STREAM, Terms
from teleop_data.schema import Feature


class ActionLatency:
    """Commands that arrive late over one window an episode. Holds one episode's state.

    The world executes the newest command that has arrived, and goes on with the last one until a
    late one does: a position is held, a relative motion repeated. Commands under way when the
    window ends are lost.

        told          a0  a1  a2  a3  a4  a5         active at steps 2, 3, 4, by 2
        executed      a0  a1  a1  a1  a2  a5

    Attributes:
        terms: what it is; its options are those of `sim.perturbations.corruptions.Late`.
        window: of this episode; whoever drives advances it before `command`.
    """

    def __init__(self, terms: Terms, *, action: Feature) -> None:
        """Delay the commands of the feature `action`. ValueError if the delay is out of range."""
        self.terms, self._action = terms, action
        self.reset(0)

    def reset(self, seed: int, *, rank: int = 0) -> None:
        """Begin the episode of `seed`."""
        self.window = self.terms.draw_window(seed, rank=rank)
        rng = np.random.default_rng([STREAM + rank, seed, 0])
        self._late = Late(self._action, rng, **self.terms.options)

    def command(self, action: np.ndarray) -> np.ndarray:
        """What the world executes when told `action` (A,); once a control step."""
        executed = self._late.deliver(action, is_bad=self.window.is_active)
        return action if executed is None else executed
