"""Which things the hand touches and holds."""

from __future__ import annotations

from collections.abc import Iterable

import mujoco
import numpy as np

from sim.arm.panda import FINGER_PADS


class HandContacts:
    """Reads a world's contacts; nothing is kept between calls."""

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, *, movable: Iterable[str]
    ) -> None:
        """Watch the contacts of `movable` bodies in `data`."""
        self._data = data
        self._geoms = {
            name: np.flatnonzero(model.geom_bodyid == model.body(name).id) for name in movable
        }
        self._pads = [model.geom(name).id for name in FINGER_PADS]
        touching = (model.geom_contype != 0) & (model.geom_bodyid > 0)
        is_hand = np.array(
            [model.geom(i).name.startswith("hand_") for i in range(model.ngeom)], dtype=bool
        )
        self._hand = np.flatnonzero(touching & is_hand)

    def is_touching(self, name: str) -> bool:
        """Whether any part of the hand touches the body `name`. KeyError if it is not movable."""
        return len(self._partners(name, self._hand)) > 0

    def is_holding(self, name: str) -> bool:
        """Whether both finger pads touch the body `name`."""
        return len(np.unique(self._partners(name, self._pads))) == len(self._pads)

    def _partners(self, name: str, parts: np.ndarray | list[int]) -> np.ndarray:
        """Those of the geoms `parts` that touch the body `name`, once per contact."""
        pairs = self._data.contact.geom  # (contacts, 2)
        things = np.isin(pairs, self._geoms[name])
        return pairs[:, ::-1][things & np.isin(pairs[:, ::-1], parts)]
