"""Reports: what the tables say, that the HTML holds everything, and what is refused."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deploy.report import (
    ReportContent,
    count_changes,
    evaluation_row,
    flag_comparisons,
    live_row,
    write_report,
)
from deploy.report_html import to_html


def results(perturbation: str, flag: str, *, successes: str, **changes: Any) -> dict[str, Any]:
    """As results.json has it; `successes` is a string of 1 and 0, an episode each."""
    rows = [{"seed": i, "success": mark == "1"} for i, mark in enumerate(successes)]
    rate = successes.count("1") / len(successes)
    values = {
        "command": f"forcing-evaluate perturbation={perturbation} flag={flag}",
        "checkpoint": "policy",
        "inference": "rolling",
        "perturbation": perturbation,
        "outage": {"start": [5, 15], "length": 10, "options": {}},
        "flag": flag,
        "seeds": list(range(len(successes))),
        "num_episodes": len(successes),
        "mean_max_reward": 0.75,
        "mean_max_reward_error": 0.05,
        "success_rate": rate,
        "success_interval": [max(0.0, rate - 0.1), min(1.0, rate + 0.1)],
        "mean_success_time_s": 3.25,
        "network_calls_per_step": 1.0,
        "holds_per_episode": 0.5,
        "episodes": rows,
    }
    return values | changes


def live_episode(*, success: bool, newest: int, p99: float, answer_s: float) -> dict[str, Any]:
    return {
        "success": success,
        "statistics": {
            "num_newest": newest,
            "num_continued": 2,
            "num_holds": 1,
            "delay_steps": {"p99": p99},
            "round_trip_s": {"p50": answer_s},
        },
    }


def written(folder: Path, rows: list[dict[str, Any]]) -> list[Path]:
    """Evaluation folders, the first with a film and its levels."""
    folders = []
    for i, row in enumerate(rows):
        path = folder / f"evaluation_{i}"
        path.mkdir(parents=True)
        (path / "results.json").write_text(json.dumps(row))
        folders.append(path)
    (folders[0] / "rollout_7.mp4").write_bytes(b"the film")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folders[0] / "levels_7.png")
    return folders


CLEAN = results("none", "auto", successes="1111")
TOLD = results("black", "auto", successes="1101")
BELIEVED = results("black", "none", successes="0010")


def test_a_row_says_what_the_file_says():
    assert evaluation_row(TOLD) == [
        "black for 10 steps",
        "auto",
        "rolling",
        "4",
        "75 %",
        "65 to 85 %",
        "0.750 ± 0.050",
        "3.2 s",
        "0.5",
        "1.00",
    ]
    never = results("none", "none", successes="0", mean_success_time_s=None)
    never["mean_max_reward_error"] = None
    row = evaluation_row(never)
    assert (row[0], row[6], row[7]) == ("clean", "0.750", "never")


def test_flags_are_compared_seed_by_seed():
    assert count_changes(TOLD, BELIEVED) == (3, 1)
    assert count_changes(BELIEVED, TOLD) == (1, 3)
    (sentence,) = flag_comparisons([CLEAN, TOLD, BELIEVED])
    assert "3 of 4 episodes succeed that fail when it is believed; 1 the other way" in sentence


def test_runs_that_differ_in_more_than_the_flag_are_not_compared():
    for change in ({"seeds": [9, 9, 9, 9]}, {"outage": None}, {"checkpoint": "other"}):
        assert flag_comparisons([TOLD, BELIEVED | change]) == []


def test_a_live_row_sums_up_its_episodes():
    episodes = [
        live_episode(success=True, newest=30, p99=1.0, answer_s=0.010),
        live_episode(success=False, newest=40, p99=3.0, answer_s=0.030),
        live_episode(success=True, newest=50, p99=2.0, answer_s=0.020),
    ]
    row = live_row("covered", episodes)
    assert row == ["covered", "3", "2 of 3", "120", "6", "3", "3 steps", "20 ms"]


def test_a_report_holds_tables_pictures_and_films(tmp_path: Path):
    folders = written(tmp_path / "in", [CLEAN, TOLD, BELIEVED])
    live = tmp_path / "in" / "live.json"
    live.write_text(
        json.dumps({"episodes": [live_episode(success=True, newest=9, p99=1, answer_s=0.01)]})
    )
    html = write_report(
        tmp_path / "out",
        ReportContent(
            title="A <title>",
            introduction="Words & words.",
            evaluations=folders,
            live={"healthy": [live]},
            pictures={"Training": folders[0] / "levels_7.png"},
        ),
    )
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "| clean | auto | rolling | 4 | 100 % |" in markdown
    assert "| healthy | 1 | 1 of 1 | 9 | 2 | 1 | 1 steps | 10 ms |" in markdown
    for name in re.findall(r"\]\(([^)]+)\)", markdown):
        assert (tmp_path / "out" / name).exists(), name
    with Image.open(tmp_path / "out" / "success.png") as picture:
        assert picture.size[0] > 300
    page = html.read_text()
    assert "<title>A &lt;title&gt;</title>" in page
    assert "Words &amp; words." in page
    assert page.count("<tr>") == 4 + 2
    assert base64.b64encode(b"the film").decode() in page
    # nothing is fetched from anywhere
    assert set(re.findall(r'src="([a-z]+:)', page)) == {"data:"}
    assert "http" not in page


def test_a_report_can_be_written_again_over_itself(tmp_path: Path):
    folders = written(tmp_path / "in", [CLEAN])
    content = ReportContent(title="t", evaluations=folders)
    first = write_report(tmp_path / "out", content).read_text()
    assert write_report(tmp_path / "out", content).read_text() == first


def test_the_html_of_every_element(tmp_path: Path):
    lines = ["# a", "", "words <b>", "", "- one", "- two", "", "```", "code & more", "```", "end"]
    page = to_html(lines, folder=tmp_path, title="t")
    body = page.split("<body>")[1].split("</body>")[0].strip()
    assert body.splitlines() == [
        "<h1>a</h1>",
        "<p>words &lt;b&gt;</p>",
        "<ul><li>one</li><li>two</li></ul>",
        "<pre>code &amp; more</pre>",
        "<p>end</p>",
    ]


def test_nothing_to_report_and_broken_results_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="nothing to report"):
        write_report(tmp_path / "out", ReportContent(title="t"))
    for text, message in (("{", "is not JSON"), ("{}", "holds no episodes")):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            write_report(tmp_path / "out", ReportContent(title="t", evaluations=[tmp_path]))
    with pytest.raises(ValueError, match="no results at"):
        write_report(tmp_path / "out", ReportContent(title="t", evaluations=[tmp_path / "x"]))
    assert not (tmp_path / "out").exists()
