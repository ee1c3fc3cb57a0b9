"""forcing-validate: whether a store of demonstrations may be trained on, and what to do if not.

    forcing-validate path=data/pick_place.zarr output_dir=outputs/pick_place

Prints a table of findings with episode, step, severity and what to do. Exit status 0 means that no
finding is an error (strict=true: nor a warning), 1 that one is. Where an output folder is given it
writes

    validate.json   the same in full (`validate` documents its keys)
    lag.png         correlation of each action with the state over the lag
    timing.png      intervals between captures, where the store has capture times
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import hydra
import numpy as np
import zarr
import zarr.storage
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING
from omegaconf.errors import MissingMandatoryValue

from teleop_data.action_lag import UNKNOWN_LAG, ActionLag, action_lags, lag_trouble
from teleop_data.capture_times import capture_names, time_trouble, timing_names
from teleop_data.check_plots import lag_plot, timing_plot
from teleop_data.episode_trouble import copies, early_ends, failures, idle_trouble, is_idle
from teleop_data.replay_buffer import SCHEMA_KEY, ReplayBuffer, StoreError
from teleop_data.trouble import Trouble, find_trouble, outliers

Severity = Literal["error", "warning", "note"]
ORDER: tuple[Severity, ...] = ("error", "warning", "note")

# By kind: how bad it is and what to do. error: training on it fails or teaches something wrong.
VERDICTS: dict[str, tuple[Severity, str]] = {
    "no_action": ("error", "name the action: a policy has nothing to learn"),
    "no_observation": ("error", "record a camera or a state: a policy would see nothing"),
    "unreadable": ("error", "copy the store again, or leave its episodes out with forcing-repair"),
    "missing_file": ("error", "copy the store again; if its writer leaves out zeros, convert it"),
    "not_finite": ("error", "drop or cut these episodes with forcing-repair"),
    "time_backwards": ("error", "drop these episodes; the source's clock is not monotonic"),
    "action_after_effect": ("error", "pair each observation with the action that follows it"),
    "guessed_schema": ("note", "convert it with forcing-convert and say the rate and the roles"),
    "several_actions": ("warning", "choose one as the action, or join them when converting"),
    "short_episode": ("warning", "look at them; drop false starts with forcing-repair"),
    "ends_in_motion": ("warning", "look at their ends; drop them if the task is not done"),
    "not_successful": ("warning", "drop them with forcing-repair unless you want failures"),
    "copied_episode": ("warning", "drop the copies: they leak from training into validation"),
    "idle_start": ("warning", "forcing-repair drop_idle=true cuts it"),
    "idle_end": ("warning", "forcing-repair drop_idle=true cuts it"),
    "idle_stretch": ("note", "a policy may learn to wait there; cut it with forcing-repair"),
    "constant": ("note", "normal for a joint that is not used, else a sensor is not connected"),
    "outlier": ("warning", "look at these steps; a spike widens the normalization"),
    "action_jump": ("note", "normal for a mouse or a switch, else a glitch of the teleoperator"),
    "frozen_camera": ("warning", "cut these steps, or check the camera's cable"),
    "repeated_frames": ("warning", "the camera is slower than the rate: record at its rate"),
    "blank_frame": ("warning", "cut these steps, or check the camera's exposure and cover"),
    "capture_gap": ("warning", "cut the episode there: a window would span the gap"),
    "stale_source": ("warning", "this source is slower than the rate: record at its rate"),
    "wrong_rate": ("error", "say the true rate when converting, or drop these episodes"),
    "missed_steps": ("warning", "cut the episode there: a window would span what is missing"),
    "late_steps": ("warning", "the loop was too slow: smaller pictures or a lower rate"),
    "slow_answer": ("warning", "choose a horizon longer than this, or check the time stamps"),
    "shifted_episode": ("warning", "their actions are shifted in time: drop or re-align them"),
    "no_answer": ("note", "no lag can be told; normal for a gripper that is seldom used"),
}


@dataclass
class ValidateConfig:
    """What `forcing-validate` is told.

    Attributes:
        path: the store: ours, or a Diffusion Policy or UMI store (directory or zip).
        output_dir: folder for validate.json and the pictures, made if needed; null writes nothing.
        strict: warnings too make the exit status 1.
    """

    path: str = MISSING
    output_dir: str | None = None
    strict: bool = False


@dataclass(frozen=True, kw_only=True)
class Finding(Trouble):
    """Trouble, how bad it is, and what to do about it."""

    severity: Severity
    advice: str


def find(buffer: ReplayBuffer, *, lags: list[ActionLag]) -> Iterator[Trouble]:
    """Every kind of trouble in a buffer with at least one episode, in no particular order.

    StoreError if part of the store cannot be read.
    """
    ends, rate_hz = buffer.episode_ends, buffer.schema.rate_hz
    yield from find_trouble(buffer)
    yield from failures(buffer.episode_attributes)
    yield from copies(buffer)
    yield from early_ends(buffer)
    yield from idle_trouble(is_idle(buffer), rate_hz=rate_hz, episode_ends=ends)
    yield from lag_trouble(lags, rate_hz=rate_hz)
    timing = {name: buffer[name][:] for name in timing_names(buffer.schema)}
    finite = {name: values for name, values in timing.items() if np.isfinite(values).all()}
    yield from time_trouble(finite, rate_hz=rate_hz, episode_ends=ends)
    for feature in buffer.schema.with_role("state", "action"):
        values = buffer[feature.name][:]
        if np.isfinite(values).all():
            yield from outliers(values, feature=feature, episode_ends=ends)


def schema_trouble(buffer: ReplayBuffer) -> Iterator[Trouble]:
    """What a schema lacks that training needs, and what of it was only guessed."""
    schema = buffer.schema
    actions = [feature.name for feature in schema.with_role("action")]
    if not carries_schema(buffer):
        text = f"the store carries no schema: roles are guessed from names, {schema.rate_hz:g} Hz "
        yield _about_all("guessed_schema", text + "is assumed")
    if not actions:
        yield _about_all("no_action", f"no feature is an action: {', '.join(schema.names)}")
    if len(actions) > 1:
        yield _about_all("several_actions", f"{len(actions)} features are: {', '.join(actions)}")
    if not schema.observed:
        yield _about_all("no_observation", "no feature is a camera or a state")


def carries_schema(buffer: ReplayBuffer) -> bool:
    """Whether the store says itself what its features are, as ours do."""
    store = zarr.storage.ZipStore(buffer.path, mode="r") if buffer.path.is_file() else buffer.path
    return SCHEMA_KEY in zarr.open_group(store=store, mode="r").attrs


def _about_all(kind: str, text: str) -> Trouble:
    return Trouble(kind=kind, text=text, feature=None, count=1)


def not_checked(buffer: ReplayBuffer) -> list[str]:
    """Sentences on what the store does not carry and could therefore not be checked."""
    sentences = []
    if not capture_names(buffer.schema):
        sentences.append(
            "rates and gaps: the store has no captured_s_* features, so its times are "
            "step numbers divided by the rate"
        )
    if not buffer.schema.with_role("state"):
        sentences.append("frozen frames, action lag, idle stretches: the store has no state")
    return sentences


def validate(buffer: ReplayBuffer, *, lags: list[ActionLag] | None = None) -> dict[str, Any]:
    """JSON-ready verdict on a buffer with at least one episode.

    Keys: path, episodes, steps, rate_hz, counts (findings by severity), findings (as `Finding`,
    worst first), not_checked (sentences), lags (by entry of the action: state, meaning, lag in
    steps, correlation, lags, curve, episode_lags, null where not known).

    Args:
        buffer: the store.
        lags: as `action_lags` gives them; None computes them.

    Raises:
        ValueError: no episode.
    """
    if not buffer.num_episodes:
        raise ValueError(f"{buffer.path} holds no finished episode: nothing to validate")
    found = list(schema_trouble(buffer))
    try:
        lags = action_lags(buffer) if lags is None else lags
        found += find(buffer, lags=lags)
    except StoreError as error:
        found.append(_about_all("unreadable", str(error)))
    findings = [judged(trouble) for trouble in found]
    findings.sort(key=lambda finding: ORDER.index(finding.severity))
    return {
        "path": str(buffer.path),
        "episodes": buffer.num_episodes,
        "steps": buffer.num_steps,
        "rate_hz": buffer.schema.rate_hz,
        "counts": {s: sum(f.severity == s for f in findings) for s in ORDER},
        "findings": [asdict(finding) for finding in findings],
        "not_checked": not_checked(buffer),
        "lags": {lag.action: _lag_json(lag) for lag in lags or []},
    }


def judged(trouble: Trouble) -> Finding:
    """The finding that a trouble is."""
    severity, advice = VERDICTS[trouble.kind]
    return Finding(**vars(trouble), severity=severity, advice=advice)


def _lag_json(lag: ActionLag) -> dict[str, Any]:
    return {
        "state": lag.state,
        "meaning": lag.meaning,
        "lag": lag.lag,
        "correlation": lag.correlation,
        "lags": lag.lags.tolist(),
        "curve": lag.curve.tolist(),
        "episode_lags": [None if e == UNKNOWN_LAG else e for e in lag.episode_lags.tolist()],
    }


def table(verdict: dict[str, Any]) -> str:
    """The verdict of `validate` as text for a terminal."""
    counts = ", ".join(f"{number} {name}s" for name, number in verdict["counts"].items())
    lines = [
        verdict["path"],
        f"{verdict['episodes']} episodes, {verdict['steps']} steps at {verdict['rate_hz']:g} Hz: "
        + counts,
    ]
    if verdict["findings"]:
        lines += ["", f"{'severity':<9} {'kind':<19} {'episode':>7} {'step':>5} {'count':>6}  what"]
    for finding in verdict["findings"]:
        episode, step = finding["places"][0] if finding["places"] else ("all", "-")
        head = f"{finding['severity']:<9} {finding['kind']:<19} {episode:>7} {step:>5} "
        what = textwrap.wrap(finding["text"], 90) + [f"-> {finding['advice']}"]
        lines.append(f"{head}{finding['count']:>6}  {what[0]}")
        lines += [" " * 52 + line for line in what[1:]]
    lines += [""] * bool(verdict["lags"])
    for action, lag in verdict["lags"].items():
        lines.append(
            f"{lag['state']} answers {action} after {lag['lag']} steps "
            f"(as a {lag['meaning']}, correlation {lag['correlation']:.2f})"
        )
    lines += [f"not checked: {sentence}" for sentence in verdict["not_checked"]]
    return "\n".join(lines)


def is_good(verdict: dict[str, Any], *, strict: bool = False) -> bool:
    """Whether no finding is an error, nor, if strict, a warning."""
    return not verdict["counts"]["error"] and not (strict and verdict["counts"]["warning"])


def run(config: ValidateConfig) -> bool:
    """Whether the store that `config` names is good; prints and writes what was found.

    FileNotFoundError or ValueError if it cannot be opened at all.
    """
    buffer = ReplayBuffer.open(config.path)
    verdict = validate(buffer)
    print(table(verdict))
    if config.output_dir is not None:
        folder = Path(config.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(verdict, indent=2, allow_nan=False)
        (folder / "validate.json").write_text(text + "\n", encoding="utf-8")
        written = ["validate.json"]
        if verdict["lags"]:
            lag_plot(verdict).savefig(folder / "lag.png", bbox_inches="tight")
            written.append("lag.png")
        if capture_names(buffer.schema):
            timing_plot(buffer).savefig(folder / "timing.png", bbox_inches="tight")
            written.append("timing.png")
        print(f"written to {folder}: {', '.join(written)}")
    return is_good(verdict, strict=config.strict)


def main() -> None:
    """Console entry point: reads the command line, exits with a message on misuse."""
    ConfigStore.instance().store(name="validate_schema", node=ValidateConfig)
    hydra.main(version_base="1.3", config_path="configs", config_name="validate")(_main)()


def _main(config: Any) -> None:
    try:
        is_good = run(config)
    except MissingMandatoryValue as error:
        sys.exit(f"forcing-validate: {error.full_key} is not given; say {error.full_key}=...")
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"forcing-validate: {error}")
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
