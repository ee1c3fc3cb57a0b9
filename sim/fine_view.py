"""A second world of the same things with the robot's real surfaces, for pictures for people."""

from __future__ import annotations

import mujoco
import numpy as np

from sim.panda import FINE_GROUP, THINGS_GROUP
from sim.rendering import Backend, open_renderer
from sim.table import Build, table_scene


class FineView:
    """Follows a world that is drawn fast, and is drawn fine."""

    def __init__(
        self, model: mujoco.MjModel, *, build: Build, backend: Backend, scene: str
    ) -> None:
        """A view of the world of `model`, whose things `build` makes again here."""
        spec = table_scene(visuals="fine")
        build(spec)
        self._theirs, self._model = model, spec.compile()
        self._data = mujoco.MjData(self._model)
        # robots differ in geoms, things do not and come in the same order
        self._our_things = np.flatnonzero(self._model.geom_group == THINGS_GROUP)
        self._their_things = np.flatnonzero(model.geom_group == THINGS_GROUP)
        self._renderer = open_renderer(
            self._model,
            scene=f"fine {scene}",
            backend=backend,
            effects=True,
            geom_groups=(THINGS_GROUP, FINE_GROUP),
        )

    def render(self, data: mujoco.MjData, camera: str, *, height: int, width: int) -> np.ndarray:
        """(H, W, 3) uint8, the world as it is in `data`, seen by `camera`."""
        self._follow(data)
        return self._renderer.render(self._data, camera, height=height, width=width)

    def _follow(self, data: mujoco.MjData) -> None:
        ours, theirs = self._model, self._theirs
        ours.light_diffuse, ours.cam_pos, ours.cam_quat = (
            theirs.light_diffuse,
            theirs.cam_pos,
            theirs.cam_quat,
        )
        ours.vis.headlight.ambient = theirs.vis.headlight.ambient
        ours.geom_rgba[self._our_things] = theirs.geom_rgba[self._their_things]
        ours.geom_size[self._our_things] = theirs.geom_size[self._their_things]
        self._data.qpos, self._data.mocap_pos = data.qpos, data.mocap_pos
        self._data.mocap_quat = data.mocap_quat
        mujoco.mj_forward(ours, self._data)

    def close(self) -> None:
        """Free the renderer."""
        self._renderer.close()
