"""What a model's cameras see, as pictures: through OpenGL, or by rays where there is none.

    backend   needs                     effects                    semi-transparent, textured
    gl        EGL, OSMesa or a window   shadows, reflections, 4x   as they are
    rays      nothing                   none                       opaque; the texture's mean colour

Both draw geoms only: no sites, tendons or contacts. Same input, same pixels, on one machine.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import mujoco
import numpy as np

from sim.rendering.gl_drawer import GlDrawer, gl_trouble
from sim.rendering.ray_drawer import RayDrawer

log = logging.getLogger(__name__)

Backend = Literal["auto", "gl", "rays"]
MAX_SIDE = 4096  # pixels


class Drawer(Protocol):
    """Turns a model's state into pixels, for CameraRenderer, which checks what it passes on."""

    def draw(self, data: mujoco.MjData, camera_id: int, *, height: int, width: int) -> np.ndarray:
        """(H, W, 3) uint8, what the camera sees."""
        ...

    def close(self) -> None:
        """Free what is held. Called once."""
        ...


class CameraRenderer:
    """Draws what the named cameras of a model see, any of them at any size."""

    def __init__(self, model: mujoco.MjModel, drawer: Drawer) -> None:
        """Pictures of `model` made by `drawer`; `open_renderer` chooses one."""
        self._model = model
        self._drawer: Drawer | None = drawer

    def render(self, data: mujoco.MjData, camera: str, *, height: int, width: int) -> np.ndarray:
        """What `camera` sees, (H, W, 3) uint8 in memory of its own.

        Poses are those of the last `mj_forward`; colours, lights and sizes those in the model now.
        Any thread may call, one at a time.

        Raises:
            KeyError: no such camera.
            ValueError: the size makes no picture, or `data` is of another model.
            RuntimeError: the renderer is closed, or was opened before a fork.
        """
        if self._drawer is None:
            raise RuntimeError("the renderer is closed; open another with open_renderer")
        if data.model is not self._model:
            raise ValueError("data is of another model than the renderer; open one for its model")
        for name, side in {"height": height, "width": width}.items():
            if not isinstance(side, int | np.integer) or not 1 <= side <= MAX_SIDE:
                raise ValueError(f"{name} is {side!r}, expected 1 to {MAX_SIDE} whole pixels")
        return self._drawer.draw(data, self._camera_id(camera), height=height, width=width)

    def close(self) -> None:
        """Free what the renderer holds. Closing again does nothing."""
        if self._drawer is not None:
            self._drawer.close()
        self._drawer = None

    def _camera_id(self, name: str) -> int:
        camera_id = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_CAMERA, name)
        if camera_id < 0:
            names = (self._model.camera(i).name for i in range(self._model.ncam))
            raise KeyError(f"no camera {name!r}; have: {', '.join(names) or 'none'}")
        return camera_id


def open_renderer(
    model: mujoco.MjModel,
    *,
    scene: str,
    backend: Backend = "auto",
    effects: bool = False,
    geom_groups: Sequence[int] = (0, 1, 2),
) -> CameraRenderer:
    """A renderer for the cameras of `model`.

    Args:
        model: what is drawn. Its colours, lights, cameras and sizes may change later, its meshes
            and textures may not.
        scene: name of what the model was compiled from. Renderers with the same name and effects
            share one OpenGL context, until the last of them is closed.
        backend: "auto" takes OpenGL if it can be had, else rays, with a warning in the log.
        effects: shadows, reflections and smooth edges, at 10 to 30 times the cost; OpenGL only.
        geom_groups: the groups of geoms to be seen.

    Raises:
        GlUnavailable: backend "gl", and there is no OpenGL; says what to install.
        ValueError: no such backend or group, or `scene` is in use with other meshes or textures.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"no backend {backend!r}; have: {', '.join(get_args(Backend))}")
    if not geom_groups or not set(geom_groups) <= set(range(mujoco.mjNGROUP)):
        raise ValueError(
            f"geom groups are {tuple(geom_groups)}, expected some of 0 to {mujoco.mjNGROUP - 1}"
        )
    if backend == "rays" or (backend == "auto" and not _gl_or_warning()):
        return CameraRenderer(model, RayDrawer(model, geom_groups=geom_groups))
    drawer = GlDrawer(model, scene=scene, effects=effects, geom_groups=geom_groups)
    return CameraRenderer(model, drawer)


def gl_is_available() -> bool:
    """Whether this process can draw with OpenGL. Tried once."""
    return gl_trouble() is None


@functools.cache
def _gl_or_warning() -> bool:
    """Whether there is OpenGL; warns once if not."""
    if (trouble := gl_trouble()) is not None:
        log.warning("drawing by rays, slower and plainer than OpenGL: %s", trouble)
    return trouble is None
