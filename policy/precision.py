"""Precision: in which arithmetic a training multiplies its matrices.

bfloat16 doubles the speed where the hardware computes it, and halves it where it is imitated, as on
CPUs without it.
"""

from __future__ import annotations

import torch

PRECISIONS = ("auto", "no", "bf16")


def chosen_precision(wanted: str) -> str:
    """ "no" or "bf16": what is `wanted`, or for "auto" what is fast on this machine.

    Raises:
        ValueError: `wanted` is none of `PRECISIONS`.
    """
    if wanted not in PRECISIONS:
        raise ValueError(f"mixed_precision is {wanted!r}, expected one of {', '.join(PRECISIONS)}")
    if wanted != "auto":
        return wanted
    return "bf16" if computes_bfloat16() else "no"


def computes_bfloat16() -> bool:
    """Whether the device that training takes, the GPU if there is one, computes bfloat16 itself."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
