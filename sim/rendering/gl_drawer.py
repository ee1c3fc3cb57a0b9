"""Pictures through OpenGL: MuJoCo's own rasteriser, one GL context for all models of a scene.

A GL context with the meshes and textures uploaded to it takes 5 to 40 MB and 0.1 s; shadows and
MuJoCo's default framebuffer would make it 160 MB. Colours, lights and poses are not in it: they are
read from the model at every picture. So environments of one scene share a context, each with a
model of its own.

    model, data --> MjvScene (one a renderer) --> GL context + MjrContext (one a scene) --> pixels

Any thread may draw, one at a time: a context is current only while it draws. A context does not
survive a fork.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import functools
import hashlib
import importlib
import logging
import os
import platform
import sys
import threading
import warnings
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import mujoco
import numpy as np

INSTALL_HINT = (
    "on Debian or Ubuntu: apt-get install -y --no-install-recommends "
    "libegl1 libgl1-mesa-dri libopengl0 (or libosmesa6, with MUJOCO_GL=osmesa); a program that "
    "imports OpenGL before it draws here must set PYOPENGL_PLATFORM=egl (or osmesa) first"
)
# what MUJOCO_GL may say, and the mujoco sub-package that opens such a context
CONTEXTS = {"egl": "egl", "osmesa": "osmesa", "glfw": "glfw", "glx": "glfw", "cgl": "cgl"}
CONTEXT_OF_SYSTEM = {"Linux": "egl", "Darwin": "cgl", "Windows": "glfw"}
DISABLED = ("disable", "disabled", "off", "false", "0")

FIRST_SIDE = 256  # pixels; the framebuffer grows when more is asked
FONT_SCALE = 100  # of texts, which are not drawn
SHADOW_MAP_SIDE, NUM_SAMPLES = 2048, 4
MAX_DECORATIONS = 100  # geoms of a scene that are not of the model

# arrays of a model that are copied to the GL context, so that a change of them later is not seen
UPLOADED = (
    *("mesh_vert", "mesh_normal", "mesh_texcoord", "mesh_face", "mesh_vertadr", "mesh_faceadr"),
    *("mesh_graph", "hfield_data", "hfield_size", "hfield_nrow", "hfield_ncol"),
    *("tex_data", "tex_type", "tex_height", "tex_width", "tex_nchannel"),
    *("mat_texid", "mat_texuniform", "mat_texrepeat"),
    *("skin_vert", "skin_face", "skin_texcoord", "skin_vertadr", "skin_faceadr"),
)


class GlUnavailable(RuntimeError):
    """No OpenGL context can be opened here; says why and what to install."""


@functools.cache
def gl_trouble() -> str | None:
    """Why this process can open no GL context, None if it can. Tried once."""
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    if chosen in DISABLED:
        return f"MUJOCO_GL={chosen}; unset it for OpenGL"
    try:
        context = _Context(mujoco.MjSpec().compile(), effects=False)
    except GlUnavailable as error:
        return str(error)
    context.free()
    return None


class GlDrawer:
    """Draws a model's cameras with OpenGL."""

    def __init__(
        self, model: mujoco.MjModel, *, scene: str, effects: bool, geom_groups: Sequence[int]
    ) -> None:
        """Ready to draw; arguments as for `sim.rendering.camera_renderer.open_renderer`.

        Raises:
            GlUnavailable: no context can be opened.
            ValueError: `scene` is in use with other meshes or textures.
        """
        if (trouble := gl_trouble()) is not None:
            raise GlUnavailable(f"OpenGL cannot be used here: {trouble}")
        self._model = model
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + MAX_DECORATIONS)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = effects
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = effects
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = np.isin(range(mujoco.mjNGROUP), geom_groups)
        self._option.sitegroup[:] = self._option.tendongroup[:] = 0  # geoms only, as rays see
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._context = _join(self, model, scene=scene, effects=effects)

    def draw(self, data: mujoco.MjData, camera_id: int, *, height: int, width: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        with self._context.current():
            self._camera.fixedcamid = camera_id
            category = mujoco.mjtCatBit.mjCAT_ALL.value
            mujoco.mjv_updateScene(
                self._model, data, self._option, None, self._camera, category, self._scene
            )
            return self._context.draw(self._scene, height=height, width=width)

    def close(self) -> None:
        """Leave the context; the last one to leave frees it."""
        with _lock:
            self._context.users.discard(self)
            _free_unused()


class _Context:
    """A GL context and the meshes and textures of one scene in it."""

    process: ClassVar[int | None] = None  # the one that opened the first

    def __init__(self, model: mujoco.MjModel, *, effects: bool) -> None:
        """Open it and upload the assets of `model`. GlUnavailable if it cannot be opened."""
        _refuse_after_fork()
        self.users: weakref.WeakSet[GlDrawer] = weakref.WeakSet()  # forgotten ones drop out
        self.assets = assets_digest(model)
        self._module = _platform_module()
        _Context.process = os.getpid()
        with _errors_as_unavailable(self._module):
            # their __del__ reads _context even where __init__ failed before it was set
            self._gl = type("GLContext", (self._module.GLContext,), {"_context": None})(1, 1)
            if not self._gl._context:
                raise RuntimeError("no context was given; is there a display?")
            with self.current():
                self._mjr = mujoco.MjrContext(_frugal(model, effects=effects), FONT_SCALE)
                mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._mjr)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Current in the calling thread, and in no other, meanwhile.

        Raises:
            RuntimeError: in a process forked from the one that opened the context.
        """
        _refuse_after_fork()
        with _lock:
            self._gl.make_current()
            try:
                yield
            finally:
                _let_go(self._module)

    def draw(self, scene: mujoco.MjvScene, *, height: int, width: int) -> np.ndarray:
        """(H, W, 3) uint8 of `scene`, while current."""
        if height > self._mjr.offHeight or width > self._mjr.offWidth:
            mujoco.mjr_resizeOffscreen(
                max(width, self._mjr.offWidth), max(height, self._mjr.offHeight), self._mjr
            )
        view = mujoco.MjrRect(0, 0, width, height)
        pixels = np.empty((height, width, 3), np.uint8)
        mujoco.mjr_render(view, scene, self._mjr)
        mujoco.mjr_readPixels(pixels, None, view, self._mjr)
        return np.ascontiguousarray(pixels[::-1])  # GL counts rows from the bottom

    def free(self) -> None:
        """Give everything back; in a forked child just forget it, as freeing would hang."""
        if os.getpid() == _Context.process:
            with self.current():
                self._mjr.free()
            self._gl.free()
        self._gl._context = None  # or its __del__ would free it again


_lock = threading.RLock()
_contexts: dict[tuple[str, bool], _Context] = {}


def _join(user: GlDrawer, model: mujoco.MjModel, *, scene: str, effects: bool) -> _Context:
    """The scene's context, opened if there is none yet, with `user` among its users."""
    with _lock:
        _free_unused()
        context = _contexts.get((scene, effects))
        if context is None:
            context = _contexts[scene, effects] = _Context(model, effects=effects)
            # after the first context, so that it runs before what mujoco registered then, which
            # shuts EGL down and would make every later release an error
            atexit.unregister(_free_all)
            atexit.register(_free_all)
        elif context.assets != assets_digest(model):
            raise ValueError(
                f"scene {scene!r} is open with other meshes, textures or planes than this "
                "model's; give models that are compiled from different scenes different keys"
            )
        context.users.add(user)
        return context


def _free_unused() -> None:
    """Free contexts whose users are closed or forgotten.

    Done when others come or go, never when a user is garbage-collected: that may happen in the
    midst of drawing with another context, which would lose its place in the thread.
    """
    for key, context in list(_contexts.items()):
        if not context.users:
            del _contexts[key]
            context.free()


def _free_all() -> None:
    """Free what is open, at the end of the process."""
    with _lock:
        while _contexts:
            _contexts.popitem()[1].free()


def _frugal(model: mujoco.MjModel, *, effects: bool) -> mujoco.MjModel:
    """A copy of `model` whose context takes little memory: no large framebuffer, few samples."""
    frugal = copy.copy(model)
    frugal.vis.global_.offwidth = frugal.vis.global_.offheight = FIRST_SIDE
    frugal.vis.quality.offsamples = NUM_SAMPLES if effects else 0
    frugal.vis.quality.shadowsize = SHADOW_MAP_SIDE if effects else 0
    return frugal


def assets_digest(model: mujoco.MjModel) -> bytes:
    """Equal for models that can share a context: what is uploaded to it is the same."""
    digest = hashlib.blake2b()
    for name in UPLOADED:
        digest.update(np.ascontiguousarray(getattr(model, name)))
    planes = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
    digest.update(model.geom_size[planes])
    digest.update(model.geom_matid[planes])
    return digest.digest()


def _platform_module() -> Any:
    """mujoco's sub-package for this system's contexts, or for those that MUJOCO_GL names.

    The variable is read, never set: mujoco reads it on import, so that setting it here may come
    too late, and where EGL is missing it would make a later `import mujoco` fail.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    name = CONTEXTS.get(chosen) or CONTEXT_OF_SYSTEM.get(platform.system(), "glfw")
    try:
        # PyOpenGL tells everybody that its accelerator is not installed, which nobody needs
        logging.getLogger("OpenGL").setLevel(logging.WARNING)
        return importlib.import_module(f"mujoco.{name}")
    except (ImportError, AttributeError, OSError) as error:
        raise GlUnavailable(f"{name}: {error}; {INSTALL_HINT}") from error


@contextlib.contextmanager
def _errors_as_unavailable(module: Any) -> Iterator[None]:
    """Turn what opening a context may raise into GlUnavailable."""
    expected: list[type[Exception]] = [ImportError, RuntimeError, mujoco.FatalError]
    if "OpenGL.error" in sys.modules:  # looked up: importing it here might settle on GLX for good
        expected.append(sys.modules["OpenGL.error"].Error)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # glfw's; what failed is raised
            yield
    except tuple(expected) as error:
        name = module.__name__.removeprefix("mujoco.")
        raise GlUnavailable(f"{name}: {str(error).splitlines()[0]}; {INSTALL_HINT}") from error


def _refuse_after_fork() -> None:
    """RuntimeError in a child forked after OpenGL was used: it would hang."""
    if _Context.process not in (None, os.getpid()):
        raise RuntimeError(
            "OpenGL was used before this process was forked and cannot be used in it; "
            "start processes with the spawn method"
        )


def _let_go(module: Any) -> None:
    """No context is current in this thread any more, so that another thread may take it."""
    match module.__name__:
        case "mujoco.egl":
            egl, nothing = module.EGL, module.EGL.EGL_NO_SURFACE
            egl.eglMakeCurrent(module.EGL_DISPLAY, nothing, nothing, egl.EGL_NO_CONTEXT)
        case "mujoco.osmesa":
            module.osmesa.OSMesaMakeCurrent(None, None, module.GL.GL_FLOAT, 0, 0)
        case "mujoco.glfw":
            module.glfw.make_context_current(None)
        case _:
            pass  # macOS: bound to its thread
