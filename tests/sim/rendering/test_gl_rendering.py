"""Renderers through OpenGL: shared contexts, nothing leaked, other processes, and no OpenGL."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sim.rendering import gl_drawer
from sim.rendering.camera_renderer import open_renderer
from tests.sim.rendering.small_arm import ARM, needs_gl, small_arm

REPOSITORY = Path(__file__).parents[3]
SIZE = {"height": 48, "width": 64}


@needs_gl
class TestSharing:
    @pytest.fixture(autouse=True)
    def _nothing_is_left(self):
        assert gl_drawer._contexts == {}
        yield
        gl_drawer._free_unused()
        assert gl_drawer._contexts == {}

    def test_renderers_of_a_scene_share_a_context_until_the_last_closes(self):
        renderers = [open_renderer(small_arm()[0], scene="arm", backend="gl") for _ in range(50)]
        assert list(gl_drawer._contexts) == [("arm", False)]
        fine = open_renderer(small_arm()[0], scene="arm", backend="gl", effects=True)
        assert len(gl_drawer._contexts) == 2
        fine.close()
        for renderer in renderers[1:]:
            renderer.close()
        assert len(gl_drawer._contexts) == 1
        renderers[0].close()
        assert gl_drawer._contexts == {}

    def test_forgotten_renderers_give_way_to_the_next(self):
        open_renderer(small_arm()[0], scene="first", backend="gl")
        gc.collect()
        renderer = open_renderer(small_arm()[0], scene="second", backend="gl")
        assert list(gl_drawer._contexts) == [("second", False)]
        renderer.close()

    def test_a_scene_name_stands_for_one_set_of_assets(self):
        renderer = open_renderer(small_arm()[0], scene="arm", backend="gl")
        colored = small_arm(ARM.replace('rgba=".2 .7 .3 1"', 'rgba="1 0 0 1"'))[
            0
        ]  # colours are free
        open_renderer(colored, scene="arm", backend="gl").close()
        for old, new in (("0 .3  .1", "0 .4  .1"), ('rgb2=".9', 'rgb2=".8'), ('"3 3 ', '"4 3 ')):
            assert old in ARM
            with pytest.raises(ValueError, match="scene 'arm' is open with other meshes"):
                open_renderer(small_arm(ARM.replace(old, new))[0], scene="arm", backend="gl")
        renderer.close()

    @pytest.mark.parametrize(
        ("effects", "num_cycles"),
        [(False, 12), (True, 9), pytest.param(False, 200, marks=pytest.mark.slow)],
    )
    def test_opening_and_closing_leaks_nothing(self, effects: bool, num_cycles: int):
        model, data = small_arm()
        sizes = []
        for _ in range(num_cycles):
            renderer = open_renderer(model, scene="arm", backend="gl", effects=effects)
            renderer.render(data, "front", **SIZE)
            renderer.close()
            sizes.append(resident_megabytes())
        assert sizes[-1] - sizes[num_cycles // 3] < 10  # one context is 5 to 40 MB

    def test_fifty_renderers_take_the_memory_of_one(self):
        worlds = [small_arm() for _ in range(50)]
        before = resident_megabytes()
        renderers = [open_renderer(model, scene="arm", backend="gl") for model, _ in worlds]
        for renderer, (_, data) in zip(renderers, worlds, strict=True):
            renderer.render(data, "front", **SIZE)
        assert resident_megabytes() - before < 100
        for renderer in renderers:
            renderer.close()

    def test_effects_are_shadows_and_smooth_edges(self):
        model, data = small_arm(ARM.replace('diffuse=".6 .6 .6"', 'diffuse=".9 .9 .9"'))
        plain = open_renderer(model, scene="arm", backend="gl")
        fine = open_renderer(model, scene="arm", backend="gl", effects=True)
        pictures = [r.render(data, "front", height=200, width=200) for r in (plain, fine)]
        plain.close()
        fine.close()
        difference = pictures[0].astype(int).sum(-1) - pictures[1].astype(int).sum(-1)
        assert (difference > 60).mean() > 0.005  # darker in shadows
        num_colors = [len(np.unique(p.reshape(-1, 3), axis=0)) for p in pictures]
        assert num_colors[1] > num_colors[0]

    def test_sites_are_for_the_simulation_not_for_the_eye(self):
        pictures = []
        for xml in (ARM, ARM.replace("<worldbody>", '<worldbody><site pos="0 0 1" size=".3"/>')):
            model, data = small_arm(xml)
            renderer = open_renderer(model, scene="arm", backend="gl")
            pictures.append(renderer.render(data, "front", **SIZE))
            renderer.close()
        np.testing.assert_array_equal(*pictures)


def resident_megabytes() -> float:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("memory is read from /proc, which is not here")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- other processes ---


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`script` in a fresh interpreter, with a model, its data and a log on standard output."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MUJOCO", "PYOPENGL"))}
    preamble = f"""
import logging, sys
import mujoco
from sim.rendering.gl_drawer import GlUnavailable
from sim.rendering.camera_renderer import gl_is_available, open_renderer
logging.basicConfig(format="%(message)s", stream=sys.stdout)
model = mujoco.MjModel.from_xml_string({ARM!r})
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
"""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", preamble + script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=REPOSITORY,
        env=inherited | {"OMP_NUM_THREADS": "1"} | environment,
    )


@needs_gl
@pytest.mark.parametrize("ending", ["", "del kept; raise SystemExit(3)"])
def test_a_program_that_never_closes_ends_quietly(ending: str):
    done = run(f"""
kept = [open_renderer(model, scene="arm", backend="gl", effects=e) for e in (False, True)]
print(*[r.render(data, "front", height=64, width=64).std() > 10 for r in kept])
open_renderer(model, scene="forgotten", backend="gl")
{ending}
""")
    assert done.stdout == "True True\n"
    assert done.stderr == ""
    assert done.returncode == (3 if "3" in ending else 0)


NO_GL = {
    "disabled": {"MUJOCO_GL": "disable"},
    "no driver": {"MUJOCO_GL": "egl", "__EGL_VENDOR_LIBRARY_FILENAMES": "/nonexistent"},
    "no display": {"MUJOCO_GL": "glfw", "DISPLAY": "", "WAYLAND_DISPLAY": ""},
}


@pytest.mark.skipif(sys.platform != "linux", reason="these settings break OpenGL on Linux")
@pytest.mark.parametrize("environment", NO_GL.values(), ids=NO_GL)
def test_without_opengl_rays_draw_after_one_warning_that_says_what_to_install(environment):
    done = run(
        """
print(gl_is_available())
for _ in range(2):
    renderer = open_renderer(model, scene="arm")
    print(renderer.render(data, "front", height=24, width=24).std() > 10)
try:
    open_renderer(model, scene="arm", backend="gl")
except GlUnavailable as error:
    print("refused:", error)
""",
        **environment,
    )
    assert done.stderr == ""
    available, warning, first, second, refused = done.stdout.splitlines()
    assert (available, first, second) == ("False", "True", "True")
    assert warning.startswith("drawing by rays")
    assert refused.startswith("refused: OpenGL cannot be used here:")
    remedy = (
        "unset it" if "disable" in environment.values() else "libegl1 libgl1-mesa-dri libopengl0"
    )
    assert remedy in warning
    assert remedy in refused


@needs_gl
def test_a_program_may_have_imported_mujoco_for_windows_before():
    done = run(
        """
import os
os.environ["MUJOCO_GL"] = ""  # what mujoco saw when it was imported was glfw
renderer = open_renderer(model, scene="arm", backend="gl")
print(renderer.render(data, "front", height=64, width=64).std())
""",
        MUJOCO_GL="glfw",
    )
    assert done.stderr == ""
    assert float(done.stdout) > 10


def front_picture(_: int = 0) -> np.ndarray:
    model, data = small_arm()
    renderer = open_renderer(model, scene="arm", backend="gl")
    return renderer.render(data, "front", **SIZE)


@needs_gl
def test_spawned_processes_draw_the_same_each_with_its_own_context():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        theirs = pool.map(front_picture, range(2), chunksize=1)
    for picture in theirs:
        np.testing.assert_array_equal(picture, front_picture())


@needs_gl
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_is_told_so_instead_of_hanging():
    done = run("""
import multiprocessing, warnings
warnings.simplefilter("ignore")  # Python's own, that forking with threads may hang
renderer = open_renderer(model, scene="arm", backend="gl")

def child():
    for draw in (lambda: renderer.render(data, "front", height=9, width=9), open_again):
        try:
            draw()
        except RuntimeError as error:
            print(error)
    renderer.close()

def open_again():
    open_renderer(model, scene="another", backend="gl")

process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(20)
print(process.exitcode, renderer.render(data, "front", height=64, width=64).std() > 10)
""")
    assert done.stderr == ""
    *refusals, end = done.stdout.splitlines()
    assert len(refusals) == 2
    assert all("start processes with the spawn method" in line for line in refusals)
    assert end == "0 True"
