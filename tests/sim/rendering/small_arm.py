"""A small arm in MJCF for tests of renderers: every kind of geom, three cameras, three groups."""

from __future__ import annotations

import mujoco
import pytest

from sim.rendering.gl_drawer import gl_trouble

needs_gl = pytest.mark.skipif(gl_trouble() is not None, reason=f"no OpenGL: {gl_trouble()}")

# an arm of two links with a camera on its hand, over a floor; group 2 fine, 3 fast, 4 hidden
ARM = """
<mujoco>
  <asset>
    <texture type="skybox" builtin="gradient" rgb1=".2 .4 .9" rgb2=".9 .9 .8" width="32"
      height="192"/>
    <material name="shiny" rgba=".2 .7 .3 1" specular="0.9" shininess="0.3"/>
    <mesh name="wedge" vertex="-.1 -.1 0  .1 -.1 0  .1 .1 0  -.1 .1 0  -.1 0 .3  .1 0 .3"/>
  </asset>
  <worldbody>
    <light pos="1 1 3" dir="-1 -1 -3" diffuse=".6 .6 .6"/>
    <camera name="front" pos="1.3 0 .8" xyaxes="0 1 0 -.5 0 1" fovy="50"/>
    <camera name="side" pos="0 -2 .6" xyaxes="1 0 0 0 .2 1"/>
    <geom name="floor" type="plane" size="3 3 .1" rgba=".5 .45 .4 1"/>
    <geom name="post" type="cylinder" size=".06 .2" pos="-.3 .5 .2" material="shiny"/>
    <body name="arm" pos="0 0 .2">
      <joint name="shoulder" axis="0 0 1"/>
      <geom name="link" type="mesh" mesh="wedge" rgba=".8 .8 .9 1" group="2"/>
      <geom name="hull" type="box" size=".11 .11 .16" pos="0 0 .15" rgba=".9 .1 .1 1" group="3"/>
      <body name="hand" pos=".4 0 .3" euler="0 20 30">
        <joint name="wrist" axis="0 1 0"/>
        <geom name="tool" type="capsule" size=".04 .12" rgba=".3 .3 .8 1"/>
        <geom name="bumper" type="sphere" size=".3" group="4"/>
        <camera name="wrist" pos="0 .12 0" xyaxes="1 0 0 0 .5 -.2" fovy="80"/>
      </body>
    </body>
    <body name="visitor" mocap="true" pos="0 0 -3">
      <geom name="ball" type="sphere" size=".15" rgba=".9 .7 .1 1"/>
    </body>
  </worldbody>
</mujoco>
"""


def small_arm(xml: str = ARM) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """The arm of `xml`, somewhat turned."""
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    data.qpos[:] = 0.3, -0.2
    mujoco.mj_forward(model, data)
    return model, data
