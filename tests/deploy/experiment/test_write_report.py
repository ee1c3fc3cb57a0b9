"""forcing-report: what it says of results that were made up, and of an experiment that was run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from deploy.experiment.cells import Cell
from deploy.experiment.filmstrip import MOMENT_SIZE, draw_strip, moments
from deploy.experiment.measured import read_experiment
from deploy.experiment.plan import ExperimentPlan, read_plan
from deploy.experiment.run_plan import ExperimentConfig, run
from deploy.experiment.tables import FLAGS, percent
from deploy.experiment.verdicts import judge, negative_results
from deploy.experiment.write_report import write_report
from tests.deploy.experiment.synthetic import write_experiment
from tests.deploy.experiment.tiny_plan import write_plan

PLAN = """
title: Made up
task: swap
sizes: {n: 40}
targets: {short_history: short, retained: [black_2s, occluder]}
policies:
  ours: {label: Ours, checkpoint: ours, role: ours, memory_steps: 180}
  short: {label: Short, checkpoint: short}
  dropped: {label: Dropped, checkpoint: dropped, is_augmented: true}
  zeros: {label: Zeros, checkpoint: ours, role: mechanism, mark: zeros}
  brief: {label: Brief, checkpoint: brief, role: memory, memory_steps: 20}
  again: {label: Again, checkpoint: again, role: repeats}
  seed: {label: Other seed, checkpoint: seed, role: training}
conditions:
  weak: {base: noise_0.1, options: {std: 0.1}}
  strong: {base: noise_0.1, options: {std: 0.5}}
curves:
  noise: {label: noise, strengths: {"0": none, "0.1": weak, "0.5": strong}}
groups:
  - name: all
    policies: [ours]
    conditions: [none, black_2s, occluder, weak, strong]
    flags: [none, oracle, auto]
    num_episodes: ${sizes.n}
  - {name: clean, policies: [baseline, memory], num_episodes: 40}
  - name: dropped
    policies: [dropped]
    conditions: [black_2s]
    flags: [none, oracle]
    num_episodes: 40
  - {name: zeros, policies: [zeros], conditions: [black_2s], flags: [oracle], num_episodes: 20}
  - {name: zeros and clean, policies: [zeros], num_episodes: 20}
  - {name: seeds, policies: [training], num_episodes: 40}
  - {name: long, policies: [ours, repeats, short], task: swap_4, num_episodes: 20}
"""


@pytest.fixture
def plan(tmp_path: Path) -> ExperimentPlan:
    (tmp_path / "plan.yaml").write_text(PLAN)
    return read_plan(str(tmp_path / "plan.yaml"))


def good(cell: Cell) -> float:
    """All as one would wish."""
    if cell.policy == "ours":
        losses = {"none": 0.6, "oracle": 0.0, "auto": 0.0}
        strength = {"weak": 0.2, "strong": 0.9}.get(cell.condition, 0.6)
        return 1.0 if cell.condition == "none" else 1.0 - strength * (losses[cell.flag] > 0)
    return {"short": 0.0, "again": 1.0}.get(cell.policy, 0.3)


def bad(cell: Cell) -> float:
    """Nothing as one would wish."""
    if cell.policy == "ours":
        rates = {"none": 0.55, "oracle": 0.5, "auto": 0.15}
        return 0.7 if cell.condition in ("none", "strong") else rates[cell.flag]
    return 0.8


def verdicts(folder: Path) -> dict[str, str]:
    return {judged.target: judged.verdict for judged in judge(read_experiment(folder))}


TARGETS = [
    "clean: success at least 80 %",
    "Short, clean: success at most 20 %",
    "retention, flagged by the oracle: at least 0.95 of clean",
    "retention, flagged automatically: at least 0.95 of clean",
    "automatic flags within 5 points of the oracle's",
    "Ours, swap_4: success per swap falls by at most 5 points",
    "Again, swap_4: success per swap falls by at most 5 points",
]


def test_targets_are_judged_by_their_numbers(tmp_path: Path, plan: ExperimentPlan):
    met = write_experiment(tmp_path / "good", plan, rate=good)
    assert verdicts(met) == dict.fromkeys(TARGETS, "met")
    failed = write_experiment(tmp_path / "bad", plan, rate=bad)
    judged = verdicts(failed)
    assert list(judged) == TARGETS
    assert {judged[target] for target in TARGETS[:-2]} == {"not met"}


def test_a_target_that_was_not_measured_is_neither_met_nor_missed(
    tmp_path: Path, plan: ExperimentPlan
):
    folder = write_experiment(tmp_path / "results", plan, rate=good)
    for path in (folder / "ours").glob("*-auto"):
        shutil.rmtree(path)
    shutil.rmtree(folder / "short")
    told = verdicts(folder)
    assert [told[name] for name in TARGETS] == [
        "met", "not measured", "met", "not measured", "not measured", "met", "met",
    ]  # fmt: skip
    text = report_on(folder, tmp_path / "report")
    assert "; 7 cells of the plan were not evaluated" in text
    assert "ours\n\nNot measured.\n" in text


def test_negative_results_are_found_by_rule(tmp_path: Path, plan: ExperimentPlan):
    assert (
        negative_results(read_experiment(write_experiment(tmp_path / "g", plan, rate=good))) == []
    )
    experiment = read_experiment(write_experiment(tmp_path / "b", plan, rate=bad))
    words = negative_results(experiment)
    for start in (
        "Target not met: clean: success at least 80 % (",
        "Not better than Short (unflagged): clean, ours unflagged",
        "Not better than Dropped (flagged by the oracle): black 2s, ours flagged automatically",
        "Flagging harms: black 2s, any time, flagged automatically minus unflagged -",
        "Success rises with the noise from 0.1 to 0.5, flagged automatically: +",
        "Without the mechanism it is no worse: Zeros, black 2s; ours minus it -",
    ):
        assert [sentence for sentence in words if sentence.startswith(start)], start


def report_on(results: Path, folder: Path) -> str:
    write_report(results, folder)
    return (folder / "report.md").read_text()


def table_row(text: str, *starts: str) -> list[str]:
    """The first row of any table whose first cells are these."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if tuple(cells[: len(starts)]) == starts:
            return cells
    raise AssertionError(f"no row {starts}")


def test_the_report_says_what_was_measured(tmp_path: Path, plan: ExperimentPlan):
    folder = write_experiment(tmp_path / "results", plan, rate=good)
    text = report_on(folder, tmp_path / "report")
    experiment = read_experiment(folder)
    believed = experiment.find("ours", "black_2s")
    assert believed is not None
    assert percent(believed).endswith("n 40")
    oracle = table_row(text, "Ours", "flagged by the oracle")
    assert oracle[2:] == ["100 % [91, 100], n 40"] * 3
    assert table_row(text, "Ours", "unflagged")[3] == percent(believed)
    assert table_row(text, "Paper: Diffusion Forcing")[2:4] == [
        "80 %",
        "76 % occluded or distracted",
    ]
    row = table_row(text, "Ours", "black 2s", "any time", "unflagged")
    rate = believed.rate
    assert (row[4], row[5]) == ("40", f"{100 * rate:.0f} %")
    assert row[7].startswith(f"{rate:.2f} [")
    assert row[8:] == [f"{2 + rate:.1f}", "10.0 s", "12", "5", "32 m/s³"]
    row = table_row(text, "black 2s", "any time", "flagged automatically", "Dropped")
    assert re.fullmatch(r"\+\d+ points \[\+\d+, \+\d+\]", row[7])
    assert row[8] == "40"
    row = table_row(text, "black 2s", "any time", "100 % [91, 100], n 40")
    assert row[4] == "+0 points [-9, +9]"
    assert "- noise, unflagged: falls monotonically (0: 100 %" in text
    assert "flagged is worse than unflagged, of 8 compared: none." in text
    assert "| policy | clean | black 2s, flagged by the oracle |" in text
    for words in table_row(text, "Zeros")[1:]:
        assert words.endswith("against ours")
        assert ", n 20;" in words
    seeds = text[text.index("## What seed and length of a training are worth") :]
    assert re.fullmatch(r"\d+ % .* against ours", table_row(seeds, "Other seed")[1])
    assert table_row(text, "Ours", "swap_4")[2:4] == ["20", "100 % [84, 100]"]
    assert table_row(text, "short", "short0000000")[2:] == ["2500", "380", "forcing-train recipe=x"]
    assert "# ours/none-anytime-none: 40 episodes, seeds 100000 to 100039" in text
    assert "None of the rules found any." in text
    page = (tmp_path / "report" / "report.html").read_text()
    names = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert names == ["headline.png", "calibration.png", "memory.png", "long_horizon.png"]
    assert page.count('src="data:image/png') == 4
    assert "http" not in page


@pytest.mark.parametrize("better", ["none", "oracle"])
def test_a_baseline_counts_with_the_camera_it_does_better_with(
    tmp_path: Path, plan: ExperimentPlan, better: str
):
    def rate(cell: Cell) -> float:
        return good(cell) if cell.policy != "dropped" else 0.8 if cell.flag == better else 0.2

    folder = write_experiment(tmp_path / "results", plan, rate=rate)
    other = read_experiment(folder).find("dropped", "black_2s", flag=better)
    assert other is not None
    text = report_on(folder, tmp_path / "report")
    for flag in ("oracle", "auto"):
        row = table_row(text, "black 2s", "any time", FLAGS[flag], "Dropped")
        assert (row[4], row[6]) == (FLAGS[better], percent(other))


def test_a_rise_is_told(tmp_path: Path, plan: ExperimentPlan):
    folder = write_experiment(tmp_path / "results", plan, rate=bad)
    text = report_on(folder, tmp_path / "report")
    assert (
        "- noise, flagged automatically: does not fall monotonically, it rises from 0.1 to" in text
    )
    assert re.search(
        r"worse than unflagged, of 8 compared: .*black 2s \(any time, flagged automatically, -",
        text,
    )


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "plan.yaml").unlink(), "no plan.yaml in"),
        (lambda f: [shutil.rmtree(p) for p in f.glob("*/")], "no cell of the plan"),
        (lambda f: (f / "ours/none-anytime-none/cell.json").write_text("{"), "is not JSON"),
        (lambda f: (f / "ours/none-anytime-none/results.json").unlink(), "no results at"),
    ],
)
def test_broken_results_are_refused(
    tmp_path: Path, plan: ExperimentPlan, break_it: Callable[[Path], object], message: str
):
    folder = write_experiment(tmp_path / "results", plan, rate=good)
    break_it(folder)
    with pytest.raises(ValueError, match=message):
        write_report(folder, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_strip_shows_eight_moments_from_first_to_last(tmp_path: Path):
    with av.open(tmp_path / "film.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"  # type: ignore[attr-defined]
        for shade in [*range(0, 240, 10), *[230] * 10]:  # with the pause at its end
            picture = np.full((64, 64, 3), shade, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            container.mux(stream.encode(frame))  # type: ignore[attr-defined]
        container.mux(stream.encode(None))  # type: ignore[attr-defined]
    shades = [float(frame.mean()) for frame in moments(tmp_path / "film.mp4")]
    assert shades == pytest.approx([0, 30, 70, 100, 130, 160, 200, 230], abs=4)
    draw_strip(tmp_path / "film.mp4", tmp_path / "strip.jpg")
    with Image.open(tmp_path / "strip.jpg") as picture:
        width, height = MOMENT_SIZE
        assert picture.size == (4 * width, 2 * height)
        corner = np.asarray(picture)[height + 5, width + 5].mean()
    assert corner == pytest.approx(160, abs=5)


@pytest.mark.timeout(400)
def test_an_experiment_that_was_run_is_reported(tmp_path: Path):
    folder = write_plan(tmp_path)
    config = ExperimentConfig(
        plan=str(folder / "plan.yaml"),
        checkpoints=str(folder / "checkpoints"),
        output_dir=str(folder / "results"),
        num_processes=1,
    )
    assert run(config) == {}
    text = report_on(folder / "results", folder / "report")
    assert table_row(text, "Ours", "unflagged")[2].endswith("n 3")
    assert table_row(text, "tiny")[2] == "0"  # steps
    # one of the two filmed policies' episodes each: an untrained policy fails
    assert len(re.findall(r"!\[[^]]*failure\]\((.*)\.jpg\)", text)) == 2
    films = re.findall(r"^\[film\]\((.*)\)$", text, re.MULTILINE)
    assert len(films) == 2
    page = (folder / "report" / "report.html").read_text()
    for film in films:
        assert (folder / "report" / film).stat().st_size > 1000
        assert f'<a href="{film}">film</a>' in page
    assert "data:video" not in page
    commands = [line for line in text.splitlines() if line.startswith("forcing-evaluate")]
    results = (folder / "results").glob("*/*/results.json")
    assert sorted(commands) == sorted(json.loads(path.read_text())["command"] for path in results)
