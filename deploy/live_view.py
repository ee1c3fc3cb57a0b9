"""Live view: a page on this machine that shows a run as it happens, in 3D where it is an arm's.

    control loop --show--> newest frame --painter thread--> viser --websocket--> browsers
                 copies, microseconds   waits for nobody, drops what it has no time for

The page comes from this process alone and only this machine can reach it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import rich
import viser

from deploy.arm_scene import ArmScene, WorldState
from deploy.episode import StepRecord
from deploy.plan_waypoints import level_colors, plan_positions
from deploy.view_panel import Buttons, ViewPanel, Words
from policy.interface import Plan
from sim.arm.actions import ActionMode
from sim.arm.environment import ArmEnvironment
from sim.arm.inverse_kinematics import InverseKinematics
from sim.arm.panda import Visuals
from sim.arm.physics import ArmPhysics
from teleop_data.environment import Environment

HOST = "127.0.0.1"
EYE_M, LOOK_AT_M, VIEW_RAD = (1.38, -0.66, 0.68), (0.36, 0.09, 0.25), 0.80
DOT_M, LINE_M = 0.011, 0.004


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One moment of a run, in memory of its own.

    Attributes:
        words: for the panel.
        pictures: camera pictures by name; one that did not arrive is absent.
        source_levels: noise level by source.
        slots, levels: (N, A) and (N,) of the plan from the next step on.
        world, hand: state and hand position (3,) m of the arm's world, None without one.
    """

    words: Words
    pictures: Mapping[str, np.ndarray]
    source_levels: Mapping[str, float]
    slots: np.ndarray
    levels: np.ndarray
    world: WorldState | None = None
    hand: np.ndarray | None = None


class LiveView:
    """The page of one run. `show` and `start_episode` belong to the thread that runs it.

    Attributes:
        url: of the page.
        num_dropped: frames that a newer one replaced before they were painted.
    """

    def __init__(
        self,
        environment: Environment,
        *,
        title: str,
        port: int = 8080,
        arm: ArmEnvironment | None = None,
        visuals: Visuals = "fine",
        buttons: Buttons | None = None,
    ) -> None:
        """Open the page of `environment`.

        Args:
            environment: what runs; names the cameras and the rate.
            title: says what runs.
            port: of the page; 0 takes any that is free.
            arm: the arm's world inside `environment`, if that is not it; without one, no 3D.
            visuals: fine or fast surfaces of the arm; fast for a browser without a GPU.
            buttons: are shown if they are given.

        Raises:
            OSError: the port is taken.
        """
        if arm is None and isinstance(environment, ArmEnvironment):
            arm = environment
        self._environment, self._title = environment, title
        self._server = _open_server(port)
        self.url = f"http://{HOST}:{self._server.get_port()}"
        self._server.gui.set_panel_label("Forcing")
        self._server.gui.configure_theme(show_logo=False, show_share_button=False)
        cameras = [feature.name for feature in environment.schema.with_role("camera")]
        self._panel = ViewPanel(self._server.gui, cameras=cameras, buttons=buttons)
        self._cameras, self._arm = frozenset(cameras), arm
        if arm is not None:
            self._set_eye()
            # shadows take most of the time of a browser that has no GPU
            self._server.scene.configure_default_lights(cast_shadow=visuals == "fine")
            self._scene = ArmScene(self._server.scene, arm.physics, visuals=visuals)
            self._waypoints = PlanNodes(self._server.scene, arm.physics)
        self._seed, self._plan = 0, None
        self.num_dropped = 0
        self._waiting: Frame | None = None
        self._is_closed, self._changed = False, threading.Condition()
        self._painter = threading.Thread(target=self._paint_all, name="painter", daemon=True)
        self._painter.start()

    def start_episode(self, seed: int) -> None:
        """Forget the plan of the episode before; the next steps are of that of `seed`."""
        self._seed, self._plan = seed, None

    def show(self, record: StepRecord, *, subgoal: str = "", trouble: str = "") -> None:
        """Show the moment after the step of `record`, the environment's newest. Waits for nothing.

        `subgoal` is what an expert is about, `trouble` what goes wrong just now.
        """
        if record.decision.case == "hold":
            trouble = f"no plan to go on: holding. {trouble}"
        if record.plan is not None:
            self._plan = record.plan
        slots, levels = remaining_slots(self._plan, step=record.step + 1)
        result, schema = record.result, self._environment.schema
        arm = self._arm
        frame = Frame(
            words=Words(
                title=self._title,
                seed=self._seed,
                step=record.step + 1,
                max_steps=self._environment.max_steps,
                rate_hz=schema.rate_hz,
                reward=result.reward,
                is_success=result.success,
                subgoal=subgoal,
                trouble=trouble,
            ),
            pictures={k: v for k, v in result.observation.items() if k in self._cameras},
            source_levels=record.source_levels,
            slots=slots,
            levels=levels,
            world=None if arm is None else self._scene.capture(),
            hand=None if arm is None else arm.physics.tcp_position,
        )
        with self._changed:
            self.num_dropped += self._waiting is not None
            self._waiting = frame
            self._changed.notify()

    def close(self) -> None:
        """Take the page down and free the port."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._painter.join()
        with _quiet():
            self._server.stop()

    def _set_eye(self) -> None:
        eye = self._server.initial_camera
        eye.position, eye.look_at, eye.fov = np.array(EYE_M), np.array(LOOK_AT_M), VIEW_RAD

    def _paint_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._is_closed)
                frame, self._waiting = self._waiting, None
                if self._is_closed or frame is None:
                    return
            with self._server.atomic():  # one message to browsers, and one wake-up of the sender
                self._paint(frame)

    def _paint(self, frame: Frame) -> None:
        self._panel.draw(
            frame.words,
            plan_levels=frame.levels,
            pictures=frame.pictures,
            source_levels=frame.source_levels,
        )
        if frame.world is not None and frame.hand is not None:
            self._scene.draw(frame.world)
            self._waypoints.draw(frame.slots, frame.levels, hand=frame.hand)


class PlanNodes:
    """The plan in the scene: a dot a slot, and a line through them from the hand on."""

    def __init__(self, scene: viser.SceneApi, physics: ArmPhysics) -> None:
        """Add the nodes to `scene`, without a plan."""
        self._mode: ActionMode = cast(ActionMode, physics.mode)
        self._kinematics = InverseKinematics()
        nothing = np.zeros((1, 3), np.float32)
        self._dots = scene.add_point_cloud(
            "/plan/dots",
            nothing,
            np.zeros((1, 3), np.uint8),
            point_size=DOT_M,
            point_shape="circle",
            point_shading="flat",
            precision="float32",
            visible=False,
        )
        self._line = scene.add_line_segments(
            "/plan/line",
            np.stack([nothing, nothing], axis=1),
            np.zeros((1, 2, 3), np.uint8),
            thickness=LINE_M,
            visible=False,
        )

    def draw(self, slots: np.ndarray, levels: np.ndarray, *, hand: np.ndarray) -> None:
        """Show `slots` (N, A) with their noise `levels` (N,); nothing if there are none."""
        self._dots.visible = self._line.visible = len(slots) > 0
        if len(slots) == 0:
            return
        positions = plan_positions(
            slots, mode=self._mode, hand=hand, tcp_of=lambda q: self._kinematics.pose(q)[0]
        )
        colors = level_colors(levels)
        self._dots.points, self._dots.colors = positions, colors
        way, way_colors = np.vstack([hand, positions]), np.vstack([colors[:1], colors])
        self._line.points = np.stack([way[:-1], way[1:]], axis=1)
        self._line.colors = _linear(np.stack([way_colors[:-1], way_colors[1:]], axis=1))


def _linear(colors: np.ndarray) -> np.ndarray:
    """uint8 sRGB colours in linear light, as viser takes those of lines; dots it takes as sRGB."""
    return np.round(255 * (colors / 255.0) ** 2.2).astype(np.uint8)


def remaining_slots(plan: Plan | None, *, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Actions (N, A) and levels (N,) of `plan` from control step `step` on; N = 0 if none is."""
    if plan is None:
        return np.zeros((0, 0), np.float32), np.zeros(0, np.float32)
    first = max(0, step - plan.start_step)
    return plan.actions[first:], plan.levels[first:]


class _LocalServer(viser.ViserServer):
    """A viser server that nobody makes public: any page may ask for that by itself."""

    def request_share_url(self, verbose: bool = True) -> str | None:
        """None: there is no such address."""
        return None


def _open_server(port: int) -> viser.ViserServer:
    if not 0 <= port <= 65535:
        raise ValueError(f"port is {port}, expected 0 to 65535; 0 takes any that is free")
    logging.getLogger("websockets").setLevel(logging.WARNING)  # else a line a browser
    with _quiet():
        server = _LocalServer(host=HOST, port=port, verbose=False)
        if port not in (0, server.get_port()):  # viser goes on to the next port in silence
            server.stop()
            raise OSError(f"port {port} of {HOST} is taken; give another, such as {port + 1}")
    return server


@contextmanager
def _quiet() -> Iterator[None]:
    """Without viser's greeting and farewell, which it prints whatever one says."""
    console = rich.get_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before
