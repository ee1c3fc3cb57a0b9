"""The side panel of the page: words about the episode, the plan's noise levels, the cameras."""

from __future__ import annotations

import html
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import viser
from PIL import Image

from deploy.film_frame import CLEAN, INK, NOISE, Color
from deploy.plan_waypoints import level_colors

PICTURE_SIDE = 192  # pixels on the page
FRAME = 6  # pixels around a picture whose source is flagged
JPEG_QUALITY = 85


@dataclass(frozen=True, kw_only=True)
class Words:
    """What the panel says.

    Attributes:
        title: of the run: task, and who drives.
        seed, step: of the episode.
        max_steps, rate_hz: of the environment.
        reward: of the newest step.
        is_success: whether the goal is reached.
        subgoal: what an expert is about, "" if nobody says.
        trouble: what goes wrong just now, "" if nothing does.
    """

    title: str
    seed: int
    step: int
    max_steps: int
    rate_hz: float
    reward: float
    is_success: bool
    subgoal: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class Buttons:
    """What a person asked for on the page. Thread-safe."""

    is_paused: threading.Event = field(default_factory=threading.Event)
    next_asked: threading.Event = field(default_factory=threading.Event)


class ViewPanel:
    """Words, plan and pictures, one below the other; buttons where somebody heeds them."""

    def __init__(
        self, gui: viser.GuiApi, *, cameras: Sequence[str], buttons: Buttons | None = None
    ) -> None:
        """Fill the page's panel. `cameras` are shown side by side, in this order."""
        self._cameras = tuple(cameras)
        self._words = gui.add_html("")
        self._plan = gui.add_html("")
        self._pictures: viser.GuiImageHandle | None = None
        if cameras:
            blank = camera_row({}, names=self._cameras, levels={})
            self._pictures = gui.add_image(
                blank, label=", ".join(cameras), format="jpeg", jpeg_quality=JPEG_QUALITY
            )
        if buttons is not None:
            _add_buttons(gui, buttons)

    def draw(
        self,
        words: Words,
        *,
        plan_levels: np.ndarray,
        pictures: Mapping[str, np.ndarray],
        source_levels: Mapping[str, float],
    ) -> None:
        """Bring the panel up to date; what has not changed is not sent."""
        self._words.content = words_html(words)
        self._plan.content = plan_html(plan_levels)
        if self._pictures is not None:
            row = camera_row(pictures, names=self._cameras, levels=source_levels)
            self._pictures.image = row


def words_html(words: Words) -> str:
    """The words as HTML; what came from outside is escaped."""
    lines = [
        f"<b>{html.escape(words.title)}</b>",
        f"episode {words.seed}, step {words.step} of {words.max_steps} "
        f"({words.step / words.rate_hz:.1f} s)",
    ]
    if words.subgoal:
        lines.append(f"sub-goal: {html.escape(words.subgoal)}")
    reward = f"reward {words.reward:.2f}"
    if words.is_success:
        reward += f' <b style="color:{_css(CLEAN)}">goal reached</b>'
    lines.append(reward)
    if words.trouble:
        lines.append(f'<span style="color:{_css(NOISE)}">{html.escape(words.trouble)}</span>')
    return _block("<br>".join(lines))


def plan_html(levels: np.ndarray) -> str:
    """A cell a slot in its noise level's colour, from the next one on, and what colours mean."""
    if len(levels) == 0:
        return _block("no plan")
    cells = "".join(
        f'<div style="flex:1;background:{_css(color)}"></div>' for color in level_colors(levels)
    )
    scale = f"linear-gradient(to right, {_css(CLEAN)}, {_css(NOISE)})"
    return _block(
        f"plan, next {len(levels)} steps"
        f'<div style="display:flex;gap:2px;height:14px;margin:2px 0 6px">{cells}</div>'
        '<div style="display:flex;align-items:center;gap:6px;font-size:12px">decided'
        f'<div style="flex:1;height:6px;border-radius:3px;background:{scale}"></div>'
        "pure noise</div>"
    )


def camera_row(
    pictures: Mapping[str, np.ndarray], *, names: Sequence[str], levels: Mapping[str, float]
) -> np.ndarray:
    """(192, 196 n - 4, 3) uint8, the pictures of `names` side by side.

    One that did not arrive is grey; one whose noise level is above 0 has an orange frame.
    """
    tiles = []
    for name in names:
        picture = pictures.get(name)
        if picture is None:
            picture = np.full((1, 1, 3), 128, np.uint8)
        size = (PICTURE_SIDE, PICTURE_SIDE)
        # nearest: one sees the pixels that a policy gets
        tile = np.array(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST))
        if levels.get(name, 0.0) > 0:
            for edge in (tile[:FRAME], tile[-FRAME:], tile[:, :FRAME], tile[:, -FRAME:]):
                edge[:] = NOISE
        tiles += [tile, np.full((PICTURE_SIDE, 4, 3), 255, np.uint8)]
    return np.hstack(tiles[:-1])


def _add_buttons(gui: viser.GuiApi, buttons: Buttons) -> None:
    pause = gui.add_button("Pause")
    following = gui.add_button("Next episode")

    @pause.on_click
    def _(_event: object) -> None:
        if buttons.is_paused.is_set():
            buttons.is_paused.clear()
        else:
            buttons.is_paused.set()
        pause.label = "Go on" if buttons.is_paused.is_set() else "Pause"

    @following.on_click
    def _(_event: object) -> None:
        buttons.next_asked.set()


def _block(content: str) -> str:
    style = f"padding:2px 10px;font-size:14px;line-height:1.45;color:{_css(INK)}"
    return f'<div style="{style}">{content}</div>'


def _css(color: Color | np.ndarray) -> str:
    return f"rgb({color[0]},{color[1]},{color[2]})"
