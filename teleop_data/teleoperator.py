"""Teleoperator: who drives while demonstrations are recorded, a person's device or a script."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from teleop_data.environment import Observation


class Teleoperator(Protocol):
    """Gives one action per control step. May be `environment.Labelled` as well."""

    def reset(self, seed: int) -> None:
        """Forget the previous episode; `seed` fixes whatever the device draws at random."""
        ...

    def act(self, observation: Observation) -> np.ndarray:
        """The action (A,) for this control step."""
        ...
