"""What a run needs to go on: exact there and back, and refused when it does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from policy.training import averaging
from policy.training_state import FILE, load_training_state, save_training_state


def parts(seed: int, *, width: int = 4):
    """A model, its average and its optimizer."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 1))
    ema = AveragedModel(model, multi_avg_fn=averaging(0.9))
    return model, ema, torch.optim.AdamW(model.parameters())


def step(model, ema, optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    ema.update_parameters(model)


def test_round_trip(tmp_path: Path) -> None:
    saved, loaded = parts(0), parts(1)
    assert load_training_state(tmp_path, *loaded) == 0  # nothing there yet
    for _ in range(3):
        step(*saved)
    save_training_state(tmp_path, 3, *saved)
    assert load_training_state(tmp_path, *loaded) == 3
    for trio in (saved, loaded):
        step(*trio)
    for i in (0, 1):
        a, b = saved[i].state_dict(), loaded[i].state_dict()
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert saved[1].n_averaged == 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    trio = parts(0)
    step(*trio)
    save_training_state(tmp_path, 1, *trio)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    return tmp_path


@pytest.mark.parametrize("share", [0.0, 0.01, 0.9])
def test_a_state_that_was_cut_off_is_refused(folder: Path, share: float) -> None:
    whole = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="cannot resume from .*Choose another output_dir"):
        load_training_state(folder, *parts(0))


def test_a_state_of_another_model_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"(?s)cannot resume from .*Choose another output_dir"):
        load_training_state(folder, *parts(0, width=5))


def test_a_state_without_its_step_is_refused(folder: Path) -> None:
    save_file(load_file(folder / FILE), folder / FILE)
    with pytest.raises(ValueError, match="cannot resume from .*Choose another output_dir"):
        load_training_state(folder, *parts(0))
