"""Pictures without OpenGL: one ray a pixel, shaded as OpenGL shades, without its textures.

    sky <-- miss -- ray through a pixel -- hit --> geom, depth, normal --> lights --> colour

N rays or hits, G geoms, M materials, H height, W width. Vectors are in the world's frame.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

DEFAULT_RGBA = np.array([0.5, 0.5, 0.5, 1], np.float32)  # a geom's where its material counts
DEFAULT_SPECULAR, DEFAULT_SHININESS = 0.5, 0.5  # of geoms without material
MAX_SHININESS = 128.0  # OpenGL's exponent for a shininess of 1
PAST = 1 + 1e-6  # times a depth: just behind what is there

# forward, right and down of the sky's faces, in the order of its texture
SKY_FACES = np.array(
    [
        [(1, 0, 0), (0, 1, 0), (0, 0, -1)],
        [(-1, 0, 0), (0, -1, 0), (0, 0, -1)],
        [(0, 0, 1), (1, 0, 0), (0, -1, 0)],
        [(0, 0, -1), (1, 0, 0), (0, 1, 0)],
        [(0, -1, 0), (1, 0, 0), (0, 0, -1)],
        [(0, 1, 0), (-1, 0, 0), (0, 0, -1)],
    ],
    np.float32,
)


@dataclass(frozen=True)
class Hits:
    """What rays hit first.

    Attributes:
        geoms: (N,) ids, -1 for none.
        depths: (N,) metres along the view; anything where nothing is hit.
        normals: (N, 3) unit vectors out of the surface.
    """

    geoms: np.ndarray
    depths: np.ndarray
    normals: np.ndarray


class RayDrawer:
    """Draws a model's cameras by casting rays on the CPU."""

    def __init__(self, model: mujoco.MjModel, *, geom_groups: Sequence[int]) -> None:
        """Ready to draw the geoms of `geom_groups`."""
        self._model = model
        self._groups = np.isin(range(mujoco.mjNGROUP), geom_groups).astype(np.uint8)
        self._scene = mujoco.MjvScene(model, maxgeom=0)  # for its lights and its camera
        self._sky = sky_texture(model)
        self._tints = material_tints(model)

    def draw(self, data: mujoco.MjData, camera_id: int, *, height: int, width: int) -> np.ndarray:
        """What the camera sees, (H, W, 3) uint8. ValueError if it is orthographic."""
        camera = mujoco.MjvCamera()
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, camera_id
        mujoco.mjv_updateScene(self._model, data, mujoco.MjvOption(), None, camera, 0, self._scene)
        view = self._scene.camera[0]
        if view.orthographic:
            raise ValueError("rays cannot draw an orthographic camera; use backend='gl'")
        eye = (view.pos + self._scene.camera[1].pos) / 2.0  # between the two of a stereo picture
        rays = pixel_rays(view, height=height, width=width)
        hits = cast_rays(
            *(self._model, data, eye, rays), groups=self._groups, near=view.frustum_near
        )
        is_hit = (hits.geoms >= 0) & (hits.depths < view.frustum_far)
        picture = np.empty((height * width, 3), np.float32)
        picture[~is_hit] = sky_colors(self._sky, rays[~is_hit])
        picture[is_hit] = self._shade(
            hits.geoms[is_hit],
            eye=eye.astype(np.float32),
            offsets=(hits.depths[is_hit, None] * rays[is_hit]).astype(np.float32),
            normals=hits.normals[is_hit].astype(np.float32),
        )
        pixels = 255 * np.clip(picture, 0, 1) + 0.5
        return pixels.astype(np.uint8).reshape(height, width, 3)

    def close(self) -> None:
        """Nothing to free."""

    def _shade(
        self, geoms: np.ndarray, *, eye: np.ndarray, offsets: np.ndarray, normals: np.ndarray
    ) -> np.ndarray:
        """(N, 3) colours of points on `geoms` (N,), `offsets` (N, 3) away from `eye` (3,).

        The sum over lights of the ambient light, the diffuse by the angle at which it falls, and
        the specular by the angle to its mirror image (Blinn, SIGGRAPH 1977, eq. 5): OpenGL's, but
        at every pixel, where OpenGL takes corners of triangles and mixes their colours.
        """
        matter = _Matter.of(self._model, geoms, tints=self._tints)
        colors = matter.emission * matter.color
        points, to_eye = eye + offsets, -_unit(offsets)
        for light in self._scene.lights[: self._scene.nlight]:
            to_light, strength = _light_at(light, points)
            slope = np.maximum(_dot(normals, to_light), 0)
            mirror = np.maximum(_dot(normals, _unit(to_light + to_eye)), 0)
            glint = np.where(slope > 0, matter.specular * mirror**matter.exponent, 0)
            diffuse = matter.color * (light.ambient + slope * light.diffuse)
            colors += strength * (diffuse + glint * light.specular)
        return colors


def cast_rays(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    eye: np.ndarray,
    rays: np.ndarray,
    *,
    groups: np.ndarray,
    near: float,
) -> Hits:
    """First surfaces that `rays` (N, 3) from `eye` (3,) meet from outside, at least `near` deep.

    Args:
        model, data: what is there.
        eye: where all rays start.
        rays: one metre deep along the view.
        groups: (6,) uint8, 1 for the groups of geoms that can be hit.
        near: metres, the near plane.
    """
    # mj_multiRay leaves out bodies by a bounding sphere that does not hold geoms which collide with
    # nothing, and that is misplaced where a body's inertia is turned: up to a quarter of a wrist
    # camera's pixels lost the hand (3.8.1). Bodies without bounding volumes are never left out; it
    # then agrees with mj_ray to the bit, and is 4 times as fast as a call for every ray.
    solid = copy.copy(model)
    solid.body_bvhadr[:] = -1
    solid.geom_rgba[:] = geom_colors(model)
    solid.geom_matid[:] = -1  # else a geom made invisible by its own colour would be hit
    geoms = np.empty(len(rays), np.int32)
    depths, normals = np.empty(len(rays)), np.empty(rays.size)
    mujoco.mj_multiRay(
        *(solid, data, eye, rays.ravel(), groups, 1, -1),
        *(geoms, depths, normals, len(rays), mujoco.mjMAXVAL),
    )
    hits = Hits(geoms, depths, normals.reshape(-1, 3))
    _look_through(hits, solid, data, eye, rays, groups=groups, near=near)
    return hits


def _look_through(
    hits: Hits,
    model: mujoco.MjModel,
    data: mujoco.MjData,
    eye: np.ndarray,
    rays: np.ndarray,
    *,
    groups: np.ndarray,
    near: float,
) -> None:
    """Replace hits before the near plane and hits from inside by what is behind, as OpenGL does.

    They are few, or none, unless the camera is inside of something.
    """
    geom, normal = np.empty(1, np.int32), np.empty(3)
    is_through = (hits.depths < near) | (_dot(hits.normals, rays)[:, 0] > 0)
    for i in np.flatnonzero((hits.geoms >= 0) & is_through):
        depth = hits.depths[i]
        while hits.geoms[i] >= 0 and (depth < near or hits.normals[i] @ rays[i] > 0):
            start = max(depth * PAST, near)
            beyond = mujoco.mj_ray(
                *(model, data, eye + start * rays[i], rays[i], groups, 1, -1), geom, normal
            )
            depth = start + beyond
            hits.geoms[i], hits.depths[i], hits.normals[i] = geom[0], depth, normal


@dataclass(frozen=True)
class _Matter:
    """What hit geoms are made of: `color` (N, 3), the others (N, 1)."""

    color: np.ndarray
    emission: np.ndarray
    specular: np.ndarray
    exponent: np.ndarray

    @classmethod
    def of(cls, model: mujoco.MjModel, geoms: np.ndarray, *, tints: np.ndarray) -> _Matter:
        """Materials of `geoms` (N,), defaults where they have none."""
        material = model.geom_matid[geoms]  # -1, the last, for none

        def of_hits(values: np.ndarray, default: float) -> np.ndarray:
            return np.append(values, np.float32(default))[material][:, None]

        return cls(
            color=geom_colors(model)[geoms, :3] * tints[material],
            emission=of_hits(model.mat_emission, 0.0),
            specular=of_hits(model.mat_specular, DEFAULT_SPECULAR),
            exponent=MAX_SHININESS * of_hits(model.mat_shininess, DEFAULT_SHININESS),
        )


def geom_colors(model: mujoco.MjModel) -> np.ndarray:
    """(G, 4) colours in which geoms appear: their own if it is set, else their material's."""
    has_own = (model.geom_rgba != DEFAULT_RGBA).any(-1, keepdims=True)
    materials = np.vstack([model.mat_rgba, DEFAULT_RGBA])[model.geom_matid]
    return np.where(has_own, model.geom_rgba, materials)


def material_tints(model: mujoco.MjModel) -> np.ndarray:
    """(M + 1, 3) mean colours of materials' textures; white where there is none, and at the end."""
    tints = np.ones((model.nmat + 1, 3), np.float32)
    for material in range(model.nmat):
        texture = int(model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB])
        if texture >= 0:
            tints[material] = _texels(model, texture).mean((0, 1))
    return tints


def sky_texture(model: mujoco.MjModel) -> np.ndarray:
    """(6, S, S, 3) faces of the model's sky, in the order of SKY_FACES; black without one."""
    skies = np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX)
    if not len(skies):
        return np.zeros((6, 1, 1, 3), np.float32)
    texels = _texels(model, int(skies[0]))
    side = texels.shape[1]
    return np.resize(texels, (6, side, side, 3))  # one face is repeated


def sky_colors(sky: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """(N, 3) colours of `sky` where `rays` (N, 3) meet it."""
    face = (rays @ SKY_FACES[:, 0].T).argmax(-1)
    forward, right, down = (_dot(rays, SKY_FACES[face, axis])[:, 0] for axis in range(3))
    side = sky.shape[1]
    column, row = (((along / forward + 1) / 2 * side).astype(int) for along in (right, down))
    return sky[face, row.clip(0, side - 1), column.clip(0, side - 1)]


def pixel_rays(view: Any, *, height: int, width: int) -> np.ndarray:
    """(H W, 3) rays through the pixels' centres, row by row, one metre deep along the view.

    `view` is an MjvGLCamera, whose frustum is given at its near plane.
    """
    half_height = (view.frustum_top - view.frustum_bottom) / 2
    half_width = view.frustum_width or half_height * width / height
    middle = (view.frustum_top + view.frustum_bottom) / 2
    x = (view.frustum_center + half_width * _pixel_centers(width)) / view.frustum_near
    y = (middle - half_height * _pixel_centers(height)) / view.frustum_near
    forward, up = view.forward.astype(np.float64), view.up.astype(np.float64)
    rays = forward + x[None, :, None] * np.cross(forward, up) + y[:, None, None] * up
    return rays.reshape(-1, 3)


def _light_at(light: Any, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors from `points` (N, 3) to an MjvLight, and what share of it arrives, (N, 1)."""
    if light.type == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL:
        return np.broadcast_to(-light.dir, points.shape), np.ones((1, 1), np.float32)
    offsets = light.pos - points
    distances = np.sqrt(_dot(offsets, offsets))
    to_light = offsets / distances
    if light.type != mujoco.mjtLightType.mjLIGHT_SPOT:  # a point; OpenGL knows none
        return to_light, np.ones((1, 1), np.float32)
    constant, linear, quadratic = light.attenuation
    cosine = -_dot(to_light, np.broadcast_to(light.dir, points.shape))
    is_in_cone = cosine >= np.cos(np.deg2rad(light.cutoff))
    cone = np.where(is_in_cone, np.maximum(cosine, 0) ** light.exponent, 0)
    return to_light, cone / (constant + linear * distances + quadratic * distances**2)


def _texels(model: mujoco.MjModel, texture: int) -> np.ndarray:
    """(rows, columns, 3) float32 in [0, 1]."""
    shape = (*(int(a[texture]) for a in (model.tex_height, model.tex_width, model.tex_nchannel)),)
    start = int(model.tex_adr[texture])
    texels = model.tex_data[start : start + np.prod(shape)].reshape(shape)[..., :3] / 255
    return np.broadcast_to(texels.astype(np.float32), (*shape[:2], 3))


def _pixel_centers(num_pixels: int) -> np.ndarray:
    """Where a row of pixels that fills [-1, 1] has its centres."""
    return (2 * np.arange(num_pixels) + 1) / num_pixels - 1


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, 1) inner products of rows."""
    return np.einsum("ni,ni->n", a, b)[:, None]


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1."""
    return vectors / np.sqrt(_dot(vectors, vectors))
