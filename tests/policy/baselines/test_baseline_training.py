"""Our training loop on a baseline: exact to the bit after a break, and its checkpoint acts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from policy.checkpoint import load_policy
from policy.training import TrainingSettings, train
from teleop_data.dataset import WindowDataset
from teleop_data.replay_buffer import ReplayBuffer
from tests.policy.baselines.tiny_baselines import DROP_OUT, NAMES, SCHEMA, described, observations

SETTINGS = TrainingSettings(
    num_steps=4, batch_size=3, warmup_steps=1, log_every=2, validate_every=2, save_every=2,
    num_threads=1,
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ReplayBuffer:
    """Four episodes of pictures, two shorter than the RNN's window."""
    buffer = ReplayBuffer.create(tmp_path_factory.mktemp("baselines") / "store.zarr", SCHEMA)
    for episode, length in enumerate((12, 6, 12, 7)):
        steps = [observations([episode], step=step) for step in range(length)]
        values = {k: np.concatenate([s[k] for s in steps]) for k in ("front", "wrist", "state")}
        buffer.append_episode({**values, "action": np.tanh(values["state"][:, :2])})
    return buffer


def run(name: str, store: ReplayBuffer, folder: Path, *, stop_at: int | None = None) -> Path:
    description = described(name, drop_out=DROP_OUT)
    training, held_out = (
        WindowDataset(
            store,
            schema=SCHEMA,
            episodes=np.array(episodes),
            context=description.model["context"],
            horizon=description.model["horizon"],
            only_last=name == "rnn",
        )
        for episodes in ([0, 1, 2], [3])
    )
    return train(
        description, training, held_out, settings=SETTINGS, output_dir=folder,
        provenance={}, stop_at=stop_at,
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    name: str, store: ReplayBuffer, tmp_path: Path
) -> None:
    folder = run(name, store, tmp_path / "whole")
    run(name, store, tmp_path / "resumed", stop_at=2)
    resumed = run(name, store, tmp_path / "resumed")
    weights = [(path / "model.safetensors").read_bytes() for path in (folder, resumed)]
    assert weights[0] == weights[1]
    rows = [
        json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in rows if "loss" in row] == [2, 4]
    assert not any("error_at_level" in row for row in rows)
    validation = [row["validation_loss"] for row in rows if "validation_loss" in row]
    assert len(validation) == 2
    assert max(validation) < 100  # the RNN's likelihood is not that of its low-noise mixture
    plan, levels, calls = (
        load_policy(folder, inference="chunk")
        .start_lock_step([0])
        .step(
            0,
            observation=observations([0], step=0),
            levels=np.zeros((1, 3), np.float32),
            executed=np.zeros((1, 0, 2), np.float32),
        )
    )
    assert np.isfinite(plan).all()
    assert calls == (3 if name.startswith("diffusion") else 1)
    assert (levels == 0).all()
