"""One frame of a rollout's film: the world, what the policy saw of it, and how sure its plan is.

    +-----------------+------------+
    |                 |   camera   |    the world as people see it; the camera as the policy got it
    |      world      |            |
    |                 |   words    |    step, reward, noise level of every source
    +-----------------+------------+
    |  plan, one bar a slot        |    noise level: no bar = decided, full height = pure noise
    +------------------------------+

Pictures are (H, W, 3) uint8. Pillow draws, since a frame must not cost more than a control step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from teleop_data.schema import Schema

WIDTH, HEIGHT = 640, 512  # even, as the video's pixel format asks for
WORLD_SIDE, CAMERA_SIDE = 384, 192
STRIP_TOP = 396  # the plan's bars lie below
MARGIN = 12

Color = tuple[int, int, int]
PAPER: Color = (250, 250, 248)
INK: Color = (40, 44, 52)
FAINT: Color = (214, 216, 220)
CLEAN: Color = (37, 99, 235)
NOISE: Color = (234, 88, 12)


@dataclass(frozen=True, kw_only=True)
class FilmedStep:
    """What one frame shows.

    Attributes:
        seed: of the episode.
        step: control step.
        reward: that this step gave.
        is_success: whether the goal is reached.
        world: the world after the step, as people see it.
        observation: what arrived at the policy; a source may be absent.
        source_levels: noise level by source, as the policy was told.
        plan_levels: (n,) noise levels of the plan's slots from this step on.
        is_new_plan: whether a plan arrived for this very step.
    """

    seed: int
    step: int
    reward: float
    is_success: bool
    world: np.ndarray
    observation: Mapping[str, np.ndarray]
    source_levels: Mapping[str, float]
    plan_levels: np.ndarray
    is_new_plan: bool


def draw_frame(filmed: FilmedStep, *, schema: Schema, horizon: int) -> np.ndarray:
    """(512, 640, 3) uint8. `schema` says which sources are cameras; `horizon` is the plan's."""
    image = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    image.paste(_resized(filmed.world, WORLD_SIDE, Image.Resampling.BILINEAR), (0, 0))
    canvas = ImageDraw.Draw(image)
    left = WORLD_SIDE + (WIDTH - WORLD_SIDE - CAMERA_SIDE) // 2
    top = MARGIN
    cameras = schema.with_role("camera")
    if cameras:
        _draw_camera(image, canvas, filmed, name=cameras[0].name, corner=(left, top))
        top += CAMERA_SIDE + 30
    _draw_words(canvas, filmed, schema=schema, corner=(left, top))
    _draw_plan(canvas, filmed, horizon=horizon)
    return np.asarray(image)


def _draw_camera(
    image: Image.Image,
    canvas: ImageDraw.ImageDraw,
    filmed: FilmedStep,
    *,
    name: str,
    corner: tuple[int, int],
) -> None:
    """What the first camera delivered; crossed out if nothing came, framed if flagged."""
    left, top = corner
    box = (left, top, left + CAMERA_SIDE - 1, top + CAMERA_SIDE - 1)
    picture = filmed.observation.get(name)
    if picture is None:
        canvas.rectangle(box, fill=FAINT)
        canvas.line(box, fill=INK, width=2)
        canvas.line((box[0], box[3], box[2], box[1]), fill=INK, width=2)
    else:
        image.paste(_resized(picture, CAMERA_SIDE, Image.Resampling.NEAREST), corner)
    level = filmed.source_levels.get(name, 0.0)
    canvas.rectangle(box, outline=NOISE if level > 0 else INK, width=5 if level > 0 else 1)
    words = f"camera {name}" if level == 0 else f"camera {name}: noise level {level:.1f}"
    canvas.text((left, box[3] + 5), words, fill=INK if level == 0 else NOISE, font=_font(13))


def _draw_words(
    canvas: ImageDraw.ImageDraw, filmed: FilmedStep, *, schema: Schema, corner: tuple[int, int]
) -> None:
    """Step and reward, then a bar per source for its noise level."""
    left, top = corner
    canvas.text((left, top), f"episode {filmed.seed}, step {filmed.step}", fill=INK, font=_font(15))
    words = f"reward {filmed.reward:.2f}" + ("   goal reached" if filmed.is_success else "")
    canvas.text((left, top + 22), words, fill=CLEAN if filmed.is_success else INK, font=_font(15))
    top += 56
    for feature in schema.observed:
        level = filmed.source_levels.get(feature.name, 0.0)
        canvas.text((left, top), feature.name, fill=INK, font=_font(13))
        bar = (left + 90, top + 3, left + CAMERA_SIDE - 1, top + 13)
        canvas.rectangle(bar, fill=FAINT)
        if level > 0:
            canvas.rectangle((*bar[:2], bar[0] + level * (bar[2] - bar[0]), bar[3]), fill=NOISE)
        top += 20


def _draw_plan(canvas: ImageDraw.ImageDraw, filmed: FilmedStep, *, horizon: int) -> None:
    """One bar a slot, from now on; its height and colour are the noise level."""
    words = "plan: noise level of the next actions"
    if not filmed.is_new_plan:
        words += " (no new plan at this step)"
    canvas.text((MARGIN, STRIP_TOP), words, fill=INK, font=_font(13))
    top, bottom = STRIP_TOP + 20, HEIGHT - 24
    width = (WIDTH - 2 * MARGIN) / horizon
    for slot in range(horizon):
        left, right = MARGIN + slot * width, MARGIN + (slot + 1) * width - 3
        canvas.rectangle((left, top, right, bottom), fill=(238, 239, 241))
        if slot >= len(filmed.plan_levels):
            continue  # the plan has run out here
        level = float(filmed.plan_levels[slot])
        height = max(3.0, level * (bottom - top))  # a decided slot keeps a blue foot
        canvas.rectangle((left, bottom - height, right, bottom), fill=_level_color(level))
    canvas.text((MARGIN, bottom + 4), "now", fill=INK, font=_font(13))
    end = f"+{horizon - 1} steps"
    canvas.text((WIDTH - MARGIN, bottom + 4), end, fill=INK, font=_font(13), anchor="ra")


def _level_color(level: float) -> Color:
    """Blue where clean, orange where noise."""
    red, green, blue = (round(c + level * (n - c)) for c, n in zip(CLEAN, NOISE, strict=True))
    return red, green, blue


def _resized(picture: np.ndarray, side: int, how: Image.Resampling) -> Image.Image:
    image = Image.fromarray(picture)
    return image if image.size == (side, side) else image.resize((side, side), how)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
