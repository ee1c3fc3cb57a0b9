"""Reports: what several evaluations say together, as `report.md` and as a single `report.html`.

A report folder holds both, and the pictures and films that they show. The HTML carries all of it
inside and needs neither network nor server.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from deploy.report_html import to_html
from deploy.report_pictures import draw_success

Results = Mapping[str, Any]  # what a results.json holds, see `deploy.results`

TABLE_HEAD = (
    "condition",
    "flag",
    "mode",
    "episodes",
    "success",
    "95 % interval",
    "mean max reward",
    "time to success",
    "holds an episode",
    "calls a step",
)
LIVE_HEAD = (
    "run",
    "episodes",
    "success",
    "new plan",
    "old plan",
    "hold",
    "delay p99",
    "answer p50",
)


@dataclass(kw_only=True)
class ReportContent:
    """What a report is made of.

    Attributes:
        title: its headline.
        introduction: a paragraph.
        evaluations: folders that `forcing-evaluate` wrote.
        live: files that `forcing-run` wrote, by name of the condition.
        pictures: further pictures by caption, such as learning curves.
    """

    title: str
    introduction: str = ""
    evaluations: Sequence[Path] = ()
    live: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    pictures: Mapping[str, Path] = field(default_factory=dict)


def write_report(folder: Path, content: ReportContent) -> Path:
    """Write the report into `folder`; returns the path of `report.html`.

    Raises:
        ValueError: there is nothing to report, or a results file is not one.
    """
    if not content.evaluations and not content.live:
        raise ValueError("nothing to report: give folders of forcing-evaluate or files of a run")
    results = [read_results(path / "results.json") for path in content.evaluations]
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"# {content.title}", "", content.introduction, ""]
    if results:
        lines += ["## In virtual time, every condition on the same seeds", ""]
        lines += markdown_table(TABLE_HEAD, [evaluation_row(row) for row in results])
        lines += [f"- {line}" for line in flag_comparisons(results)] + [""]
        draw_success(results, folder / "success.png")
        lines += ["![success by condition](success.png)", ""]
    if content.live:
        rows = [live_row(name, _episodes(paths)) for name, paths in content.live.items()]
        lines += ["## Over sockets, in real time", ""]
        lines += markdown_table(LIVE_HEAD, rows)
    for caption, path in content.pictures.items():
        lines += [f"## {caption}", "", f"![{caption}]({_copy(path, folder, path.name)})", ""]
    lines += _films(content.evaluations, results, folder)
    if results:
        lines += ["## Commands", "", "```", *(str(row["command"]) for row in results), "```", ""]
    (folder / "report.md").write_text("\n".join(lines))
    html = folder / "report.html"
    html.write_text(to_html(lines, folder=folder, title=content.title))
    return html


def read_results(path: Path) -> Results:
    """A results file. ValueError says which one is missing or broken."""
    try:
        results = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ValueError(f"no results at {path}; forcing-evaluate writes them") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if "episodes" not in results:
        raise ValueError(f"{path} holds no episodes; its keys are {sorted(results)}")
    return results


def condition_of(results: Results) -> str:
    """The perturbation in words, "clean" if there was none."""
    name = results["perturbation"]
    if name == "none":
        return "clean"
    outage = results.get("outage") or {}
    length = outage.get("length")
    return f"{name} to the end" if length is None else f"{name} for {length} steps"


def evaluation_row(results: Results) -> list[str]:
    """One line of the table under `TABLE_HEAD`."""
    low, high = results["success_interval"]
    time_s, error = results["mean_success_time_s"], results["mean_max_reward_error"]
    reward = f"{results['mean_max_reward']:.3f}"
    return [
        condition_of(results),
        results["flag"],
        results["inference"],
        str(results["num_episodes"]),
        f"{100 * results['success_rate']:.0f} %",
        f"{100 * low:.0f} to {100 * high:.0f} %",
        reward if error is None else f"{reward} ± {error:.3f}",
        "never" if time_s is None else f"{time_s:.1f} s",
        f"{results['holds_per_episode']:.1f}",
        f"{results['network_calls_per_step']:.2f}",
    ]


def live_row(name: str, episodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line of the table under `LIVE_HEAD`: sums over the episodes, the worst of the delays."""
    statistics = [episode["statistics"] for episode in episodes]

    def total(key: str) -> str:
        return str(sum(row[key] for row in statistics))

    delays = [row["delay_steps"]["p99"] for row in statistics]
    answers_s = [row["round_trip_s"]["p50"] for row in statistics]
    return [
        name,
        str(len(episodes)),
        f"{sum(bool(episode['success']) for episode in episodes)} of {len(episodes)}",
        total("num_newest"),
        total("num_continued"),
        total("num_holds"),
        f"{max(delays, default=math.nan):.0f} steps",
        f"{1000 * (median(answers_s) if answers_s else math.nan):.0f} ms",
    ]


def flag_comparisons(results: Sequence[Results]) -> list[str]:
    """A sentence per condition that was run with and without flags: what flagging changed."""
    sentences = []
    for flagged in results:
        if flagged["flag"] == "none":
            continue
        for believed in results:
            same = all(
                flagged[key] == believed[key]
                for key in ("perturbation", "outage", "inference", "checkpoint", "seeds")
            )
            if same and believed["flag"] == "none" and flagged["perturbation"] != "none":
                saved, lost = count_changes(flagged, believed)
                sentences.append(
                    f"{condition_of(flagged)}: with the camera flagged ({flagged['flag']}) {saved} "
                    f"of {flagged['num_episodes']} episodes succeed that fail when it is believed; "
                    f"{lost} the other way round."
                )
    return sentences


def count_changes(flagged: Results, believed: Results) -> tuple[int, int]:
    """Episodes that succeed only flagged, and only believed; both ran on the same seeds."""
    pairs = [
        (bool(a["success"]), bool(b["success"]))
        for a, b in zip(flagged["episodes"], believed["episodes"], strict=True)
    ]
    return pairs.count((True, False)), pairs.count((False, True))


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, ended by an empty one."""
    lines = [" | ".join(("", *cells, "")).strip() for cells in (head, *rows)]
    return [lines[0], "|" + " --- |" * len(head), *lines[1:], ""]


def _episodes(paths: Sequence[Path]) -> list[Mapping[str, Any]]:
    """The rows of all episodes in some results files."""
    return [episode for path in paths for episode in read_results(path)["episodes"]]


def _films(evaluations: Sequence[Path], results: Sequence[Results], folder: Path) -> list[str]:
    """Markdown of every film and its levels, which are copied under `folder`."""
    lines: list[str] = []
    for source, row in zip(evaluations, results, strict=True):
        films = sorted(source.glob("rollout_*.mp4"))
        if not films:
            continue
        lines += [f"## Films: {condition_of(row)}, flag {row['flag']}", ""]
        for film in films:
            name = _copy(film, folder, f"{source.name}_{film.name}")
            lines += [f"[film of episode {film.stem.removeprefix('rollout_')}]({name})", ""]
            levels = film.with_name(film.stem.replace("rollout_", "levels_") + ".png")
            if levels.exists():
                picture = _copy(levels, folder, f"{source.name}_{levels.name}")
                lines += [f"![noise levels of that episode]({picture})", ""]
    return lines


def _copy(source: Path, folder: Path, name: str) -> str:
    """Copy a file into the report's folder; returns its name there."""
    if source.resolve() != (folder / name).resolve():
        shutil.copyfile(source, folder / name)
    return name
