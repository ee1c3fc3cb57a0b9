"""The training loop on a tiny store: exact to the bit, early to refuse, and it learns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

import policy.training_state
from policy.checkpoint import load_policy
from policy.training import (
    NonFiniteLossError,
    TrainingSettings,
    averaging,
    learning_rate_at,
    step_generator,
    train,
)
from teleop_data.replay_buffer import ReplayBuffer
from tests.policy.tiny_models import described, windows, write_store

SETTINGS = TrainingSettings(
    num_steps=6, batch_size=8, learning_rate=3e-3, warmup_steps=2,
    log_every=2, validate_every=3, save_every=3, num_threads=1,
)  # fmt: skip
STATE = Path("training_state") / "state.safetensors"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ReplayBuffer:
    return write_store(tmp_path_factory.mktemp("training") / "store.zarr")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(store: ReplayBuffer, folder: Path, *, stop_at: int | None = None, **changes) -> Path:
    """Train on all episodes but the last, which is held out; keywords replace settings."""
    method = changes.pop("method", {"plans_per_window": 2})
    return train(
        described(store, method=method),
        windows(store, [0, 1, 2, 3]),
        windows(store, [4]),
        settings=replace(SETTINGS, **changes),
        output_dir=folder,
        provenance={"command": "test"},
        stop_at=stop_at,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Checkpoint and training state, file by file."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] in ("checkpoint", "training_state")
    }


def metrics(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "steps_per_s"} for row in rows]


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(store, tmp_path: Path) -> None:
    """Weights, averages and optimizer to the bit; so are the files and the learning curve."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    run(store, whole)
    run(store, resumed, stop_at=4)
    half = contents(resumed)
    assert json.loads(half["checkpoint/provenance.json"])["step"] == 4
    run(store, resumed)
    assert contents(resumed) == contents(whole)
    assert contents(resumed)[str(STATE)] != half[str(STATE)]
    tensors = load_file(whole / STATE)
    kinds = {name.split(".")[0] for name in tensors}
    assert kinds == {"model", "ema", "optimizer"}
    assert {"exp_avg", "exp_avg_sq", "step"} == {
        n.rpartition(".")[2] for n in tensors if n.startswith("optimizer.")
    }
    expected = [row for row in metrics(whole) if row["step"] != 3]
    assert [r for r in metrics(resumed) if r["step"] != 3 and "loss" in r] == [
        r for r in expected if "loss" in r
    ]


def test_a_finished_run_is_left_as_it_is(store, tmp_path: Path) -> None:
    folder = run(store, tmp_path, num_steps=2)
    before = contents(tmp_path)
    assert run(store, tmp_path, num_steps=2) == folder
    assert contents(tmp_path) == before


def test_the_seed_counts(store, tmp_path: Path) -> None:
    for seed in (0, 1):
        run(store, tmp_path / str(seed), num_steps=1, seed=seed)
    zero, one = (load_file(tmp_path / s / STATE) for s in "01")
    assert not torch.equal(zero["model.denoiser.source"], one["model.denoiser.source"])


def test_what_a_run_leaves(store, tmp_path: Path) -> None:
    folder = run(store, tmp_path)
    assert folder == tmp_path / "checkpoint"
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint", "training_state", "metrics.jsonl", "learning_curves.png", "tensorboard",
    }  # fmt: skip
    assert load_policy(folder, inference="rolling").schema == store.schema
    state = load_file(tmp_path / STATE)
    assert state["ema.n_averaged"] == 6
    head = "denoiser.head.weight"
    assert not torch.equal(state[f"ema.module.{head}"], state[f"model.{head}"])
    averaged = {k.removeprefix("ema.module."): v for k, v in state.items()}
    for name, value in load_file(folder / "model.safetensors").items():
        assert torch.equal(value, averaged[name])
    rows = metrics(tmp_path)
    assert [r["step"] for r in rows if "loss" in r] == [2, 4, 6]
    assert [r["step"] for r in rows if "validation_loss" in r] == [3, 6]
    assert rows[0]["learning_rate"] == learning_rate_at(1, SETTINGS)
    assert rows[0]["gradient_norm"] > 0
    assert list(rows[0]["error_at_level"]) == [f"{0.05 + 0.1 * i:.2f}" for i in range(10)]
    assert (tmp_path / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "tensorboard").iterdir())


def test_no_pickle(store, tmp_path: Path) -> None:
    run(store, tmp_path, num_steps=1)
    for name, content in contents(tmp_path).items():
        assert name.endswith((".json", ".safetensors"))
        assert not content.startswith((b"\x80", b"PK"))


def test_the_loss_falls(store, tmp_path: Path) -> None:
    run(store, tmp_path, num_steps=60, batch_size=32, log_every=10, warmup_steps=10, save_every=60)
    losses = [row["loss"] for row in metrics(tmp_path) if "loss" in row]
    assert len(losses) == 6
    assert losses[-1] < 0.5 * losses[0]
    assert losses == sorted(losses, reverse=True)


def test_an_interrupted_save_leaves_the_state_before(store, tmp_path: Path, monkeypatch) -> None:
    run(store, tmp_path, stop_at=3)
    before = (tmp_path / STATE).read_bytes()

    def cut_off(tensors, path, metadata) -> None:
        save_file(tensors, path, metadata=metadata)
        path.write_bytes(path.read_bytes()[:1000])
        raise KeyboardInterrupt

    monkeypatch.setattr(policy.training_state, "save_file", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run(store, tmp_path)
    assert (tmp_path / STATE).read_bytes() == before
    monkeypatch.undo()
    run(store, tmp_path)
    run(store, tmp_path / "whole")
    assert (tmp_path / STATE).read_bytes() == (tmp_path / "whole" / STATE).read_bytes()


def test_a_loss_that_is_not_finite_stops_the_run(store, tmp_path: Path) -> None:
    """The weights on disk turn bad; the run says at which step, and keeps the checkpoint."""
    run(store, tmp_path, stop_at=3)
    checkpoint = contents(tmp_path)["checkpoint/model.safetensors"]
    tensors = load_file(tmp_path / STATE)
    tensors["model.denoiser.head.weight"] *= float("nan")
    save_file(tensors, tmp_path / STATE, metadata={"step": "3"})
    with pytest.raises(
        NonFiniteLossError, match=r"loss nan at step 3, with windows of episodes \[0, .*\]"
    ):
        run(store, tmp_path)
    assert contents(tmp_path)["checkpoint/model.safetensors"] == checkpoint
    load_policy(tmp_path / "checkpoint")


def test_a_gradient_that_is_not_finite_stops_the_run(store, tmp_path: Path) -> None:
    heavy = {"_target_": "policy.loss_weight.Constant", "value": 1e36}
    with pytest.raises(NonFiniteLossError, match="gradient norm inf at step 0"):
        run(store, tmp_path, method={"loss_weight": heavy})
    assert contents(tmp_path) == {}


def test_learning_rate() -> None:
    settings = TrainingSettings(num_steps=110, warmup_steps=10, learning_rate=2.0)
    rates = [learning_rate_at(step, settings) for step in range(111)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert (rates[10], rates[60], rates[110]) == pytest.approx((2.0, 1.0, 0.0))
    assert rates[35] == pytest.approx(1 + 2**-0.5)  # cos(pi / 4)
    assert learning_rate_at(500, settings) == pytest.approx(0)


def test_averaging_forgets_quickly_at_first() -> None:
    model = nn.Linear(1, 1, bias=False)
    ema = AveragedModel(model, multi_avg_fn=averaging(0.5))
    values = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]
    expected = values[0]
    for n, value in enumerate(values):
        nn.init.constant_(model.weight, value)
        ema.update_parameters(model)
        if n:
            decay = min(0.5, (1 + n) / (10 + n))
            expected = decay * expected + (1 - decay) * value
        assert ema.module.weight.item() == pytest.approx(expected, rel=1e-6)
    assert (1 + 9) / (10 + 9) > 0.5  # the last updates are at the full decay


def test_the_noise_of_a_step_is_a_function_of_seed_step_and_process() -> None:
    def first(*arguments: int) -> float:
        return torch.rand(1, generator=step_generator(*arguments)).item()

    assert first(0, 5, 0) == first(0, 5, 0)
    assert len({first(0, 5, 0), first(1, 5, 0), first(0, 6, 0), first(0, 5, 1)}) == 4
