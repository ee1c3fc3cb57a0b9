"""A plan small enough for tests: an untrained policy on the planar pick and place."""

from __future__ import annotations

from pathlib import Path

from tests.deploy.tiny_checkpoint import write_tiny_checkpoint

PLAN = """
title: A tiny experiment
task: pick_place
sizes: {few: 2, many: 3}
first_seed: 50
batch_size: 2
targets: {short_history: other, retained: [black_now]}
policies:
  ours: {label: Ours, checkpoint: tiny, role: ours, inference: rolling, memory_steps: 2}
  other: {label: Other, checkpoint: tiny, role: baseline, is_augmented: true}
  blind: {label: Zeros, checkpoint: tiny, role: mechanism, inference: rolling, mark: zeros}
conditions:
  black_now: {base: black, start: [1, 2], length: 4}
  noise_now: {base: noise_0.1, start: [1, 2], length: 0.4 s, options: {std: 0.5}}
curves:
  noise: {label: noise, strengths: {"0": none, "0.5": noise_now}}
groups:
  - {name: clean, policies: [ours, baseline], num_episodes: "${sizes.few}", num_videos: 1}
  - name: table
    policies: [ours]
    conditions: [none, black_now]
    flags: [none, oracle]
    num_episodes: ${sizes.many}
  - name: mechanism
    policies: [mechanism]
    conditions: [black_now]
    flags: [oracle]
    num_episodes: 2
"""


def write_plan(folder: Path, *, text: str = PLAN) -> Path:
    """A folder with `plan.yaml` and checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.yaml").write_text(text)
    write_tiny_checkpoint(folder / "checkpoints" / "tiny" / "checkpoint")
    return folder
