"""Statistics of one episode under control: cases, delays, latencies, interventions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deploy.latency import percentiles


@dataclass(kw_only=True)
class ControlStatistics:
    """Counts and samples of one episode; `to_json` sums them up.

    Attributes:
        cases: control steps by case: newest, continued, hold.
        interventions: control steps by what the safety filter did.
        num_network_calls: denoiser calls behind all plans that arrived, used or not.
        delays: control steps that each plan took, the first one of the episode left out.
        flagged: plans that were made with a source at a raised level, by "source: condition".
        num_late_plans: plans that took longer than their request had announced.
        num_outdated_plans: plans that came after a newer one.
        num_refused_plans: plans that were not finite or misshapen.
        horizons: how many steps in a row the plan at hand could have driven the robot.
        round_trips_s: from request to plan.
        lateness_s: how late each control step began.
        num_missed_ticks: periods that went by without a control step.
    """

    cases: Counter[str] = field(default_factory=Counter)
    interventions: Counter[str] = field(default_factory=Counter)
    num_network_calls: int = 0
    delays: list[int] = field(default_factory=list)
    flagged: Counter[str] = field(default_factory=Counter)
    num_late_plans: int = 0
    num_outdated_plans: int = 0
    num_refused_plans: int = 0
    horizons: list[int] = field(default_factory=list)
    round_trips_s: list[float] = field(default_factory=list)
    lateness_s: list[float] = field(default_factory=list)
    num_missed_ticks: int = 0

    @property
    def num_steps(self) -> int:
        """Control steps so far."""
        return sum(self.cases.values())

    @property
    def network_calls_per_step(self) -> float:
        """Denoiser calls per control step."""
        return self.num_network_calls / max(1, self.num_steps)

    def add_decision(self, case: str, *, interventions: Iterable[str], horizon: int) -> None:
        """Count one control step."""
        self.cases[case] += 1
        self.interventions.update(interventions)
        self.horizons.append(horizon)

    def add_plan(self, *, delay: int, is_late: bool, round_trip_s: float | None) -> None:
        """Count one plan that arrived."""
        self.delays.append(delay)
        self.num_late_plans += int(is_late)
        if round_trip_s is not None:
            self.round_trips_s.append(round_trip_s)

    def add_reasons(self, reasons: Mapping[str, str]) -> None:
        """Count one plan's flagged sources, condition by source."""
        self.flagged.update(f"{source}: {condition}" for source, condition in reasons.items())

    def add_tick(self, lateness_s: float, *, num_missed: int) -> None:
        """Count the beginning of one control step on the clock."""
        self.lateness_s.append(lateness_s)
        self.num_missed_ticks += num_missed

    def to_json(self) -> dict[str, Any]:
        """Everything summed up, JSON-ready. Times are in seconds, delays in control steps."""
        return {
            "num_steps": self.num_steps,
            "num_newest": self.cases["newest"],
            "num_continued": self.cases["continued"],
            "num_holds": self.cases["hold"],
            "interventions": dict(self.interventions),
            "flagged": dict(self.flagged),
            "num_network_calls": self.num_network_calls,
            "network_calls_per_step": self.network_calls_per_step,
            "delay_steps": percentiles(self.delays),
            "num_late_plans": self.num_late_plans,
            "num_outdated_plans": self.num_outdated_plans,
            "num_refused_plans": self.num_refused_plans,
            "executable_horizon": percentiles(self.horizons),
            "round_trip_s": percentiles(self.round_trips_s),
            "lateness_s": percentiles(self.lateness_s),
            "num_missed_ticks": self.num_missed_ticks,
        }
