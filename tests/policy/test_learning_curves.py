"""Metrics on disk: what is averaged, and what a resumed run keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from policy.diffusion_forcing import LossTerms
from policy.learning_curves import LearningCurves, draw_curves, read_metrics


def terms(loss: float, error: list[float], level: list[float], counted: list[bool]) -> LossTerms:
    return LossTerms(
        torch.tensor(loss), torch.tensor(error), torch.tensor(level), torch.tensor(counted)
    )


def test_a_log_is_the_mean_since_the_last(tmp_path: Path) -> None:
    curves = LearningCurves(tmp_path, first_step=0)
    curves.add(terms(1.0, [2.0, 8.0, 50.0], [0.05, 0.99, 0.5], [True, True, False]))
    curves.add(terms(3.0, [4.0, 9.0, 1.0], [0.09, 1.0, 0.15], [True, True, True]))
    assert curves.log(2, learning_rate=0.1, gradient_norm=5.0) == {"loss": "2.0000"}
    curves.add(terms(7.0, [1.0], [0.95], [True]))
    curves.log(3, learning_rate=0.2, gradient_norm=6.0)
    curves.log_validation(3, 0.25)
    curves.close()
    first, second, third = read_metrics(tmp_path / "metrics.jsonl")
    assert (first["step"], first["loss"], first["learning_rate"]) == (2, 2.0, 0.1)
    errors = first["error_at_level"]
    assert (errors["0.05"], errors["0.15"], errors["0.55"], errors["0.95"]) == (3.0, 1.0, 0.0, 8.5)
    assert first["steps_per_s"] > 0
    assert (second["loss"], second["error_at_level"]["0.05"]) == (7.0, 0.0)
    assert third == {"step": 3, "validation_loss": 0.25}
    assert (tmp_path / "learning_curves.png").stat().st_size > 10_000


def test_a_resumed_run_drops_what_it_will_write_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "loss": 1.0}\n{"step": 4, "loss": 0.5}\n{"step": 6, "lo')
    curves = LearningCurves(tmp_path, first_step=2)
    curves.add(terms(9.0, [1.0], [0.5], [True]))
    curves.log(4, learning_rate=0.1, gradient_norm=1.0)
    curves.close()
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [(2, 1.0), (4, 9.0)]


def test_a_cut_off_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text('{"step": 2, "loss": 1.0}\n{"step": 4, "lo')
    assert read_metrics(path) == [{"step": 2, "loss": 1.0}]


@pytest.mark.parametrize("rows", [[], [{"step": 1, "validation_loss": 0.5}]])
def test_a_picture_of_little(tmp_path: Path, rows: list) -> None:
    draw_curves(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").exists()
