"""Learning curves: TensorBoard, a line of JSON per log, and a picture at the end.

`metrics.jsonl` has one object a line: {"step", "loss", "validation_loss"?, "learning_rate",
"gradient_norm", "steps_per_s", "error_at_level"?: {"0.05": ...}}; a baseline has no levels.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import matplotlib
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from policy.diffusion_forcing import LossTerms

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # the backend comes first

NUM_BINS = 10  # of noise levels, for the error by level


class LearningCurves:
    """Collects loss terms between logs; tensors are read only when logging."""

    def __init__(self, output_dir: Path, *, first_step: int) -> None:
        output_dir.mkdir(parents=True, exist_ok=True)
        self._path = output_dir / "metrics.jsonl"
        self._picture = output_dir / "learning_curves.png"
        self._rows = [row for row in read_metrics(self._path) if row["step"] <= first_step]
        self._path.write_text("".join(json.dumps(row) + "\n" for row in self._rows))
        self._writer = SummaryWriter(str(output_dir / "tensorboard"), purge_step=first_step)
        self._losses: list[Tensor] = []
        self._errors = torch.zeros(2, NUM_BINS)  # sum and count per bin
        self._since_s, self._since_step = time.monotonic(), first_step

    def add(self, terms: LossTerms) -> None:
        """Take in one step's terms."""
        self._losses.append(terms.loss.detach())
        level, error = terms.level.cpu(), terms.error.float().cpu()
        bins = (level * NUM_BINS).long().clamp(max=NUM_BINS - 1)
        counted = terms.counted.cpu().float()
        self._errors[0].index_add_(0, bins, error * counted)
        self._errors[1].index_add_(0, bins, counted)

    def log(self, step: int, *, learning_rate: float, gradient_norm: float) -> dict[str, str]:
        """Write what came together since the last log; returns the progress bar's words."""
        now_s = time.monotonic()
        rate = (step - self._since_step) / max(now_s - self._since_s, 1e-9)
        loss = float(torch.stack(self._losses).mean())
        values: dict[str, Any] = {
            "loss": loss,
            "learning_rate": learning_rate,
            "gradient_norm": gradient_norm,
            "steps_per_s": rate,
        }
        if self._errors[1].any():
            mean = (self._errors[0] / self._errors[1].clamp(min=1)).tolist()
            by_level = {f"{(i + 0.5) / NUM_BINS:.2f}": e for i, e in enumerate(mean)}
            values["error_at_level"] = by_level
        self._write(step, values)
        self._losses.clear()
        self._errors.zero_()
        self._since_s, self._since_step = now_s, step
        return {"loss": f"{loss:.4f}"}

    def log_validation(self, step: int, loss: float) -> None:
        """Write the loss on held-out episodes."""
        self._write(step, {"validation_loss": loss})
        self._since_s = time.monotonic()

    def close(self) -> None:
        """Flush TensorBoard and draw the picture."""
        self._writer.close()
        draw_curves(self._rows, self._picture)

    def _write(self, step: int, values: dict[str, Any]) -> None:
        row = {"step": step, **values}
        self._rows.append(row)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in values.items():
            if isinstance(value, dict):
                for key, part in value.items():
                    self._writer.add_scalar(f"{name}/{key}", part, step)
            else:
                self._writer.add_scalar(name, value, step)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a last line that was cut off is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def draw_curves(rows: list[dict[str, Any]], path: Path) -> None:
    """Loss over steps, and error over noise level at the end of training."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, label in (("loss", "training"), ("validation_loss", "held-out episodes (EMA)")):
        points = [(row["step"], row[name]) for row in rows if name in row]
        if points:
            left.plot(*zip(*points, strict=True), label=label)
    left.set(xlabel="step", ylabel="weighted loss", yscale="log", title="Learning curve")
    if left.lines:
        left.legend()
    last = next((row["error_at_level"] for row in reversed(rows) if "error_at_level" in row), {})
    right.plot([float(level) for level in last], list(last.values()), marker="o")
    right.set(xlabel="noise level of the action token", ylabel="mean squared error, unit scale",
              title="Error by noise level", ylim=(0, None))  # fmt: skip
    figure.savefig(path, dpi=120)
    plt.close(figure)
