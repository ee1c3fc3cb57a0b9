"""Pictures of a world: fast ones for learning, fine ones for people."""

from __future__ import annotations

import mujoco
import numpy as np

from sim.arm.panda import FAST_GROUP, FINE_GROUP, THINGS_GROUP
from sim.arm.table import Build, table_scene
from sim.rendering.camera_renderer import Backend, CameraRenderer, open_renderer


class Views:
    """Both kinds of one world; what draws them is opened when it is first needed."""

    def __init__(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        *,
        build: Build,
        scene: str,
        backend: Backend,
    ) -> None:
        """Views of the world of `model` and `data`.

        Args:
            model: of a table scene.
            data: of `model`.
            build: what put the things on the table, to make them again for fine pictures.
            scene: name of what `model` shows, the same for worlds made alike.
            backend: what draws, see `sim.rendering.camera_renderer`.
        """
        self._model, self._data = model, data
        self._build: Build = build
        self._backend: Backend = backend
        self._scene = scene
        self._renderer: CameraRenderer | None = None
        self._fine_world: _FineWorld | None = None

    def fast(self, camera: str, *, height: int, width: int) -> np.ndarray:
        """(H, W, 3) uint8, what `camera` sees, with simple surfaces and no shadows."""
        if self._renderer is None:
            self._renderer = open_renderer(
                self._model,
                scene=self._scene,
                backend=self._backend,
                geom_groups=(THINGS_GROUP, FAST_GROUP),
            )
        return self._renderer.render(self._data, camera, height=height, width=width)

    def fine(self, camera: str, *, height: int, width: int) -> np.ndarray:
        """(H, W, 3) uint8 with the robot's real surfaces and shadows, 50 times slower."""
        if self._fine_world is None:
            self._fine_world = _FineWorld(
                self._model, build=self._build, backend=self._backend, scene=self._scene
            )
        return self._fine_world.render(self._data, camera, height=height, width=width)

    def close(self) -> None:
        """Free what draws; asked again, it is opened again."""
        if self._renderer is not None:
            self._renderer.close()
        if self._fine_world is not None:
            self._fine_world.close()
        self._renderer = self._fine_world = None


class _FineWorld:
    """A second world of the same things that follows the first and is drawn fine."""

    def __init__(
        self, model: mujoco.MjModel, *, build: Build, backend: Backend, scene: str
    ) -> None:
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
        self._renderer.close()
