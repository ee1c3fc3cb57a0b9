"""Rays: pixel for pixel what OpenGL shows, as far as is promised, and why not mj_multiRay as is."""

from __future__ import annotations

import re

import mujoco
import numpy as np
import pytest

from sim.rendering.camera_renderer import open_renderer
from sim.rendering.ray_drawer import cast_rays, pixel_rays
from tests.sim.rendering.small_arm import ARM, needs_gl, small_arm

SIZE = {"height": 96, "width": 128}
CAMERAS = ("front", "side", "wrist")
FLAT = '<visual><headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/></visual>'


def pair(model: mujoco.MjModel, data: mujoco.MjData, camera: str) -> tuple[np.ndarray, np.ndarray]:
    """The picture through OpenGL and the one by rays, (H, W, 3) int."""
    pictures = []
    for backend in ("gl", "rays"):
        renderer = open_renderer(model, scene="pair", backend=backend, geom_groups=(0, 2))
        pictures.append(renderer.render(data, camera, **SIZE).astype(int))
        renderer.close()
    return pictures[0], pictures[1]


@needs_gl
@pytest.mark.parametrize("camera", CAMERAS)
def test_every_pixel_shows_the_geom_that_opengl_shows_there(camera: str):
    model, data = small_arm(ARM.replace("<asset>", FLAT + "<asset>"))
    data.mocap_pos[0] = 0.3, 0.3, 0.2
    mujoco.mj_forward(model, data)
    model.light_active[:] = 0  # nothing but ambient light, so that a colour names a geom
    model.tex_data[:] = 0  # black sky
    model.mat_rgba[:] = model.geom_rgba[:] = 1
    model.geom_rgba[:, :2] = np.linspace(0.1, 0.9, 2 * model.ngeom).reshape(-1, 2)
    gl, rays = pair(model, data, camera)
    assert len(np.unique(gl.reshape(-1, 3), axis=0)) >= 4
    is_equal = np.abs(gl - rays).max(-1) <= 1
    assert is_equal.mean() > 0.995


@needs_gl
@pytest.mark.parametrize("camera", CAMERAS)
def test_shading_is_close_to_opengls(camera: str):
    model, data = small_arm()
    gl, rays = pair(model, data, camera)
    difference = np.abs(gl - rays)
    assert difference.mean() < {"front": 1.5, "side": 1.5, "wrist": 6}[camera]


LIGHTS = {
    "spot": '<light pos=".6 0 1.5" dir="-.2 0 -1" cutoff="20" exponent="30" diffuse="1 1 1"/>',
    "directional": '<light type="directional" dir="-1 0 -1" diffuse=".8 .7 .2"/>',
    "fading": '<light pos=".5 0 .8" dir="-.2 0 -1" attenuation="1 1 1" diffuse="1 1 1"/>',
    "coloured ambience": '<light pos="0 0 2" dir="0 0 -1" ambient=".4 .1 .1" specular="0 0 0"/>',
}


@needs_gl
@pytest.mark.parametrize("light", LIGHTS.values(), ids=LIGHTS)
def test_lights_of_every_kind_shine_as_in_opengl(light: str):
    model, data = small_arm(ARM.replace("<light", light + "<light", 1))
    model.light_active[1] = 0
    # on bent surfaces OpenGL mixes colours between corners as rays do at every pixel
    model.geom_size[model.geom("bumper").id] = 0.25
    model.geom_group[model.geom("bumper").id] = 0
    gl, rays = pair(model, data, "front")
    assert np.abs(gl - rays).mean() < 3
    model.light_active[0] = 0
    dark, _ = pair(model, data, "front")
    assert np.abs(gl - dark).mean() > 6  # so the light does something


@needs_gl
def test_the_sky_is_opengls_in_every_direction():
    spec = mujoco.MjSpec()
    rng = np.random.default_rng(0)
    texels = rng.integers(0, 255, (6, 4, 4, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        width=64,
        height=384,
        nchannel=3,
        data=texels.ravel().tolist(),
    )
    for i in range(8):
        spec.worldbody.add_camera(name=f"{i}", quat=rng.normal(size=4), fovy=80)
    spec.worldbody.add_geom(size=(0.1, 0, 0), pos=(9, 9, 9))
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    for i in range(model.ncam):
        gl, rays = pair(model, data, f"{i}")
        assert (np.abs(gl - rays).max(-1) < 30).mean() > 0.85  # OpenGL smooths the edges of texels


@needs_gl
def test_a_textured_thing_has_its_mean_colour():
    texture = (
        '<texture name="checks" type="2d" builtin="checker" rgb1="1 .2 .2" rgb2=".2 .2 1" '
        'width="64" height="64"/><material name="checks" texture="checks" texrepeat="8 8"/>'
    )
    xml = ARM.replace("<asset>", "<asset>" + texture)
    model, data = small_arm(xml.replace('rgba=".5 .45 .4 1"', 'material="checks"'))
    gl, rays = pair(model, data, "front")
    np.testing.assert_allclose(rays.mean((0, 1)), gl.mean((0, 1)), atol=5)


@needs_gl
def test_from_inside_a_thing_and_before_the_near_plane_one_sees_what_is_behind():
    model, data = small_arm()
    unhindered, _ = pair(model, data, "wrist")
    bumper = model.geom("bumper").id  # the camera is inside of it
    model.geom_group[bumper] = 0
    gl, rays = pair(model, data, "wrist")
    np.testing.assert_array_equal(gl, unhindered)
    assert np.abs(gl - rays).mean() < 6
    model.vis.map.znear = 0.4 / model.stat.extent  # cuts the tool before the camera off
    gl, rays = pair(model, data, "wrist")
    assert np.abs(gl - unhindered).mean() > 5
    assert (np.abs(gl - rays).max(-1) > 60).mean() < 0.01


@needs_gl
def test_beyond_the_far_plane_is_nothing():
    # no sky: OpenGL's is a dome that comes nearer than the far plane
    model, data = small_arm(re.sub(r"<texture[^>]*/>", "", ARM))
    near, _ = pair(model, data, "front")
    model.vis.map.zfar = 1.5 / model.stat.extent
    gl, rays = pair(model, data, "front")
    assert (np.abs(gl - near).max(-1) > 30).mean() > 0.05
    assert (np.abs(gl - rays).max(-1) > 30).mean() < 0.01


@needs_gl
def test_a_camera_with_a_shifted_sensor_looks_as_in_opengl():
    intrinsic = 'sensorsize=".04 .03" resolution="128 96" focal=".03 .03" principal=".004 -.003"'
    model, data = small_arm(ARM.replace('fovy="50"', intrinsic))
    gl, rays = pair(model, data, "front")
    assert (np.abs(gl - rays).max(-1) > 30).mean() < 0.01


def test_an_orthographic_camera_is_refused():
    model, data = small_arm(ARM.replace('fovy="50"', 'fovy="2" projection="orthographic"'))
    renderer = open_renderer(model, scene="arm", backend="rays")
    with pytest.raises(ValueError, match="orthographic camera; use backend='gl'"):
        renderer.render(data, "front", **SIZE)


def camera_rays(model: mujoco.MjModel, data: mujoco.MjData, camera: str):
    """Where a camera is, and its rays."""
    scene, view = mujoco.MjvScene(model, maxgeom=0), mujoco.MjvCamera()
    view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(camera).id
    mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, view, 0, scene)
    return data.cam_xpos[view.fixedcamid], pixel_rays(scene.camera[0], height=60, width=80)


# two bodies that mj_multiRay misses: one has turned inertia, the other parts that do not collide
MISSED = """
<mujoco><worldbody>
  <camera name="front" pos="0 -2 0" xyaxes="1 0 0 0 0 1"/>
  <body pos="-.3 0 0" euler="0 20 30">
    <inertial pos="0 0 0" quat="1 1 0 0" mass="1" diaginertia="1 1 1"/>
    <geom type="box" size=".1 .1 .1" pos="0 0 .5"/>
  </body>
  <body pos=".3 0 0">
    <geom type="box" size=".1 .1 .1"/>
    <geom type="box" size=".1 .1 .1" pos="0 0 .5" contype="0" conaffinity="0"/>
  </body>
</worldbody></mujoco>
"""


def lone_rays(model, data, eye, rays):
    """Geoms, depths and normals by mj_ray, one ray a call."""
    geom, normal = np.empty(1, np.int32), np.empty(3)
    rows = []
    for ray in rays:
        depth = mujoco.mj_ray(model, data, eye, ray, None, 1, -1, geom, normal)
        rows.append((geom[0], depth, *normal))
    table = np.array(rows)
    return table[:, 0].astype(int), table[:, 1], table[:, 2:]


@pytest.mark.parametrize("xml", [ARM, MISSED], ids=["arm", "missed"])
def test_all_rays_at_once_are_one_ray_a_call_to_the_bit(xml: str):
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    eye, rays = camera_rays(model, data, "front")
    hits = cast_rays(model, data, eye, rays, groups=np.ones(6, np.uint8), near=0.0)
    geoms, depths, normals = lone_rays(model, data, eye, rays)
    np.testing.assert_array_equal(hits.geoms, geoms)
    np.testing.assert_array_equal(hits.depths, depths)
    np.testing.assert_array_equal(hits.normals[geoms >= 0], normals[geoms >= 0])


def test_mj_multiray_itself_misses_bodies():
    """Once this fails, MuJoCo has mended it and cast_rays needs no copy of the model."""
    model = mujoco.MjModel.from_xml_string(MISSED)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    eye, rays = camera_rays(model, data, "front")
    geoms, depths = np.empty(len(rays), np.int32), np.empty(len(rays))
    every = (None, 1, -1, geoms, depths, None, len(rays), mujoco.mjMAXVAL)
    mujoco.mj_multiRay(model, data, eye, rays.ravel(), *every)
    expected, _, _ = lone_rays(model, data, eye, rays)
    for geom, is_missed in enumerate([True, False, True]):
        assert (expected == geom).sum() > 50
        assert ((geoms != expected) & (expected == geom)).any() == is_missed
