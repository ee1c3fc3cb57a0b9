"""Which arithmetic training uses."""

from __future__ import annotations

import pytest
import torch

from policy.precision import chosen_precision


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Makes this machine look like another."""

    def become(*, gpu: bool | None = None, avx512_bf16: bool = False, amx: bool = False) -> None:
        """`gpu`: whether one is there that computes bfloat16; None = none is there."""
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True: including_emulation or bool(gpu),
        )
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)

    return become


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ({}, "no"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx": True}, "bf16"),
        ({"gpu": True}, "bf16"),
        ({"gpu": False, "amx": True}, "no"),  # it is the GPU that trains
    ],
)
def test_auto_is_what_the_machine_computes(machine, looks: dict[str, bool], expected: str):
    machine(**looks)
    assert chosen_precision("auto") == expected


def test_what_is_asked_for_is_taken(machine):
    machine()
    assert chosen_precision("bf16") == "bf16"
    machine(gpu=True)
    assert chosen_precision("no") == "no"


def test_another_word_is_refused():
    with pytest.raises(ValueError, match="is 'fp16', expected one of auto, no, bf16"):
        chosen_precision("fp16")


def test_this_machine_can_be_asked():
    assert chosen_precision("auto") in ("no", "bf16")
