"""forcing-describe: looks at a store of demonstrations before anything is trained on it.

    forcing-describe path=data/pick_place.zarr output_dir=outputs/pick_place

Prints schema, episodes, statistics and trouble, and writes into the output folder

    describe.json       the same in full (`describe` documents its keys)
    contact_sheet.png   frames of every camera, where there are cameras
    traces.png          states and actions over time
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING
from omegaconf.errors import MissingMandatoryValue

from teleop_data.contact_sheet import contact_sheet, traces
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Feature
from teleop_data.statistics import FeatureStatistics, buffer_statistics, summarize
from teleop_data.trouble import find_trouble, is_still, longest_run


@dataclass
class DescribeConfig:
    """What `forcing-describe` is told.

    Attributes:
        path: the store: ours, or a Diffusion Policy or UMI store (directory or zip).
        output_dir: folder for describe.json and the pictures; made if it is not there.
        num_episodes: episodes in the contact sheet.
        camera_stride: every so many frames of an episode enter the cameras' statistics.
    """

    path: str = MISSING
    output_dir: str = MISSING
    num_episodes: int = 6
    camera_stride: int = 8


def describe(buffer: ReplayBuffer, *, camera_stride: int = 8) -> dict[str, Any]:
    """JSON-ready facts about a buffer with at least one episode.

    Keys: path, provenance, schema (as `Schema.to_json`), episodes (count, steps, duration_s and
    length: quantiles in steps), statistics (by feature as `FeatureStatistics.to_json`, over the
    finite steps of all episodes; null where there are none), idle (by action: share of steps whose
    action does not change, longest run in steps and where), trouble (as `trouble.Trouble`).

    Raises:
        ValueError: no episode.
        StoreError: part of the store cannot be read.
    """
    if not buffer.num_episodes:
        raise ValueError(f"{buffer.path} holds no finished episode: nothing to describe")
    lengths = buffer.episode_ends - buffer.episode_starts
    quantiles = np.quantile(lengths, [0, 0.25, 0.5, 0.75, 1]).tolist()
    return {
        "path": str(buffer.path),
        "provenance": buffer.provenance,
        "schema": buffer.schema.to_json(),
        "episodes": {
            "count": buffer.num_episodes,
            "steps": buffer.num_steps,
            "duration_s": buffer.num_steps / buffer.schema.rate_hz,
            "length": dict(zip(("min", "q25", "median", "q75", "max"), quantiles, strict=True)),
        },
        "statistics": {
            feature.name: result.to_json() if result else None
            for feature in buffer.schema.features
            for result in [finite_statistics(buffer, feature, camera_stride=camera_stride)]
        },
        "idle": {f.name: idle(buffer, f) for f in buffer.schema.with_role("action")},
        "trouble": [asdict(trouble) for trouble in find_trouble(buffer)],
    }


def finite_statistics(
    buffer: ReplayBuffer, feature: Feature, *, camera_stride: int
) -> FeatureStatistics | None:
    """Statistics over all episodes without the steps that are not finite; None if all are not."""
    if feature.role == "camera":
        episodes = np.arange(buffer.num_episodes)
        names = [feature.name]
        return buffer_statistics(
            buffer, names=names, episodes=episodes, camera_stride=camera_stride
        )[feature.name]
    values = buffer[feature.name][:].reshape(buffer.num_steps, -1)
    finite = values[np.isfinite(values).all(axis=1)]
    return summarize(lambda: [finite]) if len(finite) else None


def idle(buffer: ReplayBuffer, action: Feature) -> dict[str, Any]:
    """How often the action does not change: share of steps, longest run and where it begins."""
    still = is_still(buffer[action.name][:], feature=action, episode_ends=buffer.episode_ends)
    row, length = longest_run(still)
    episode = int(np.searchsorted(buffer.episode_ends, row, side="right"))
    return {
        "share": float(still.mean()),
        "longest_run": length,
        "episode": episode,
        "step": row - int(buffer.episode_starts[episode]),
    }


def report(facts: dict[str, Any]) -> str:
    """The facts of `describe` as text for a terminal."""
    schema, episodes, length = facts["schema"], facts["episodes"], facts["episodes"]["length"]
    lines = [
        facts["path"],
        f"{episodes['count']} episodes, {episodes['steps']} steps at {schema['rate_hz']:g} Hz, "
        f"{episodes['duration_s'] / 60:.1f} min",
        "steps per episode: " + ", ".join(f"{name} {value:g}" for name, value in length.items()),
        *(f"{key}: {value}" for key, value in facts["provenance"].items()),
        "",
        f"{'feature':<20} {'role':<7} {'shape':<11} {'dtype':<7} {'unit':<4} "
        f"{'entry':>5} {'min':>9} {'mean':>9} {'max':>9} {'std':>9}",
    ]
    for feature in schema["features"]:
        lines += _feature_rows(feature, facts["statistics"][feature["name"]])
    lines.append("")
    for name, still in facts["idle"].items():
        where = f"; longest {still['longest_run']} steps, from episode {still['episode']}, "
        where += f"step {still['step']}"
        lines.append(
            f"{name} does not change in {still['share']:.1%} of the steps"
            + (where if still["longest_run"] else "")
        )
    lines.append("trouble:" if facts["trouble"] else "no trouble found")
    lines += [f"  {trouble['kind']}: {trouble['text']}" for trouble in facts["trouble"]]
    return "\n".join(lines)


def _feature_rows(feature: dict[str, Any], statistics: dict[str, Any] | None) -> list[str]:
    """One line for each of the first eight entries of a feature."""
    shape = "x".join(map(str, feature["shape"])) or "scalar"
    head = (
        f"{feature['name']:<20} {feature['role']:<7} {shape:<11} {feature['dtype']:<7} "
        f"{feature['unit'] or '-':<4} "
    )
    if statistics is None:
        return [head + "never finite"]
    columns = [statistics[key] for key in ("minimum", "mean", "maximum", "std")]
    rows = [
        f"{entry:>5} " + " ".join(f"{value:>9.4g}" for value in values)
        for entry, values in enumerate(zip(*columns, strict=True))
    ]
    if len(rows) > 8:
        rows[7:] = [f"  ... {len(rows) - 7} more in describe.json"]
    return [(head if i == 0 else " " * len(head)) + row for i, row in enumerate(rows)]


def run(config: DescribeConfig) -> None:
    """Describe what `config` says. FileNotFoundError or ValueError if it cannot be."""
    buffer = ReplayBuffer.open(config.path)
    folder = Path(config.output_dir)
    if config.num_episodes < 1 or config.camera_stride < 1:
        raise ValueError(
            "num_episodes and camera_stride must be at least 1, got "
            f"{config.num_episodes} and {config.camera_stride}"
        )
    facts = describe(buffer, camera_stride=config.camera_stride)
    print(report(facts))
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(facts, indent=2, allow_nan=False)
    (folder / "describe.json").write_text(text + "\n", encoding="utf-8")
    written = ["describe.json"]
    if buffer.schema.with_role("camera"):
        sheet = contact_sheet(buffer, num_episodes=config.num_episodes)
        sheet.savefig(folder / "contact_sheet.png", bbox_inches="tight")
        written.append("contact_sheet.png")
    if buffer.schema.with_role("state", "action"):
        traces(buffer).savefig(folder / "traces.png", bbox_inches="tight")
        written.append("traces.png")
    print(f"written to {folder}: {', '.join(written)}")


def main() -> None:
    """Console entry point: reads the command line, exits with a message on misuse."""
    ConfigStore.instance().store(name="describe_schema", node=DescribeConfig)
    hydra.main(version_base="1.3", config_path="configs", config_name="describe")(_main)()


def _main(config: Any) -> None:
    try:
        run(config)
    except MissingMandatoryValue as error:
        sys.exit(f"forcing-describe: {error.full_key} is not given; say {error.full_key}=...")
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"forcing-describe: {error}")


if __name__ == "__main__":
    main()
