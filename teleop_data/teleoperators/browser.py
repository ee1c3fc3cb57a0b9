"""Teleoperation from a page of this machine: pictures there, hand targets back.

    act (control loop) --newest observation--> page        neither waits for the other; of what the
                       <--newest target-------             page sends, the newest alone counts

Where nobody drives (no page, a closed one, one that has gone silent) the hand is held where it is.
"""

from __future__ import annotations

import logging
import webbrowser
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from teleop_data.clock import Clock, MonotonicClock
from teleop_data.environment import Environment, Observation
from teleop_data.operator import Command, Status
from teleop_data.schema import Feature
from teleop_data.teleoperators.browser_screen import Screen, words_of
from teleop_data.teleoperators.browser_server import PageServer
from teleop_data.teleoperators.driver_seat import DriverSeat, SeatView
from teleop_data.teleoperators.hand_target import HandMapping, HandTarget, stride_towards

NOBODY = {
    "empty": "Nobody drives: no page is open. The hand is held still.",
    "silent": "The page has gone silent. The hand is held still.",
}

logger = logging.getLogger(__name__)


class BrowserTeleoperator:
    """A Teleoperator and an Operator. The page is served until `close`.

    Attributes:
        url: of the page, with a token; whoever has it can drive from this machine.
    """

    def __init__(
        self,
        environment: Environment,
        *,
        mapping: HandMapping,
        port: int = 8090,
        speed: float = 0.5,
        turn_rad_s: float = 2.0,
        labels: Sequence[str] = (),
        title: str = "Forcing: drive",
        show: bool = False,
        max_silence_s: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        """Open the page.

        Args:
            environment: what is driven; names cameras, action and rate.
            mapping: from hand targets to its actions.
            port: of the page on this machine; 0 takes any that is free.
            speed: the target moves at most so fast, in the mapping's unit per second.
            turn_rad_s: and turns at most so fast.
            labels: words that the operator can mark an episode with, a button each.
            title: of the page.
            show: open the page in this machine's browser.
            max_silence_s: a page that says nothing for longer drives no more.
            clock: None is the machine's.

        Raises:
            KeyError, ValueError: the mapping does not fit the environment, or a speed is not
                positive.
            OSError: the port is taken.
        """
        if speed <= 0 or turn_rad_s <= 0:
            raise ValueError(f"speeds must be positive, got {speed} and {turn_rad_s}")
        schema = environment.schema
        mapping.check(schema)
        self._mapping, self._dtype = mapping, schema.action.dtype
        self._stride, self._turn_rad = speed / schema.rate_hz, turn_rad_s / schema.rate_hz
        self._seat = DriverSeat(clock or MonotonicClock(), max_silence_s=max_silence_s)
        self._command: HandTarget | None = None  # None: the next step begins where the hand is
        self._is_held = False
        self._clock, self._rate_hz = clock or MonotonicClock(), schema.rate_hz
        self._acted_s: deque[float] = deque(maxlen=round(schema.rate_hz) + 1)  # in the last second
        self._screen = Screen(
            mapping, seat=self._seat, cameras=schema.with_role("camera"), labels=labels, title=title
        )
        self._server = PageServer(self._screen, port=port)
        self.url = self._server.url
        _announce("drive", self.url, show=show)

    def reset(self, seed: int) -> None:
        """Begin where the hand is; what was pointed at before counts no more."""
        self._command = None
        self._acted_s.clear()

    def act(self, observation: Observation) -> np.ndarray:
        """The action (A,) a stride towards the newest target, or holding still."""
        self._acted_s.append(self._clock.now())
        hand = self._mapping.target_of(observation)
        self._command = self._next_command(hand, self._seat.view())
        self.show(observation)
        return self._mapping.action_of(self._command).astype(self._dtype)

    def show(self, observation: Observation) -> None:
        """Show `observation` on the page."""
        self._screen.put(observation)
        self._server.wake()

    def poll(self) -> Command | None:
        """The oldest button that was pressed and not given out yet."""
        return self._screen.next_command()

    def tell(self, status: Status) -> None:
        """Show how things stand."""
        words = words_of(status, rate_hz=self._rate_hz)
        if status.phase == "recording":
            words["progress"] += f", at most {self._latest_ms():.0f} ms late"
        self._screen.tell(words)
        if status.observation is not None:
            self.show(status.observation)

    def close(self) -> None:
        """Take the page down."""
        self._server.close()

    def _next_command(self, hand: HandTarget, seat: SeatView) -> HandTarget:
        if self._command is None:
            self._seat.place(hand)
            return hand
        if seat.presence != "present":
            if self._is_held:
                return self._command
            logger.warning("%s", NOBODY[seat.presence])
            self._is_held = True
            # the fingers stay as told: around an object they are further open than they close
            held = replace(hand, closure=self._command.closure)
            self._seat.place(held)
            return held
        self._is_held = False
        aim = self._mapping.reach.clip(seat.target or hand)
        return stride_towards(self._command, aim, stride=self._stride, turn_rad=self._turn_rad)

    def _latest_ms(self) -> float:
        """By how much the latest of the last second's control steps came late, ms."""
        periods_s = np.diff(np.array(self._acted_s))
        return 1e3 * max(0.0, float(periods_s.max(initial=0.0)) - 1 / self._rate_hz)


class BrowserOperator:
    """An Operator: the page without the pad, for who drives with a device of another kind.

    The page opens when there is something to show, at the first `tell` with an observation.
    """

    def __init__(
        self,
        *,
        port: int = 8090,
        labels: Sequence[str] = (),
        title: str = "Forcing: record",
        show: bool = False,
        max_silence_s: float = 1.0,
    ) -> None:
        """Prepare the page; the arguments are those of `BrowserTeleoperator`."""
        self._port, self._labels, self._title, self._show = port, tuple(labels), title, show
        self._max_silence_s = max_silence_s
        self._screen: Screen | None = None
        self._server: PageServer | None = None

    def poll(self) -> Command | None:
        """The oldest button that was pressed and not given out yet."""
        return self._screen.next_command() if self._screen else None

    def tell(self, status: Status) -> None:
        """Show how things stand. OSError if the page is to open and its port is taken."""
        if status.observation is not None and self._screen is None:
            self._open(status.observation)
        if self._screen is None or self._server is None:
            return
        self._screen.tell(words_of(status))
        if status.observation is not None:
            self._screen.put(status.observation)
        self._server.wake()

    def close(self) -> None:
        """Take the page down."""
        if self._server is not None:
            self._server.close()

    def _open(self, observation: Observation) -> None:
        """Serve the page, with every picture that `observation` holds."""
        cameras = [
            Feature(name=name, shape=value.shape, dtype="uint8", role="camera")
            for name, value in observation.items()
            if value.ndim == 3 and value.dtype == np.uint8
        ]
        seat = DriverSeat(MonotonicClock(), max_silence_s=self._max_silence_s)
        self._screen = Screen(
            None, seat=seat, cameras=cameras, labels=self._labels, title=self._title
        )
        self._server = PageServer(self._screen, port=self._port)
        _announce("record", self._server.url, show=self._show)


def _announce(what: str, url: str, *, show: bool) -> None:
    print(f"{what} at {url}", flush=True)
    if show:
        webbrowser.open(url)
