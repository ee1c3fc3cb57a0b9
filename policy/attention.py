"""Blocks of a transformer in which every token carries its own noise level.

A level enters by AdaLN-zero (Peebles & Xie 2023) per token; positions are rotary by absolute
control step (Su et al. 2021).

B batch, T tokens, D width, E size of a level's embedding.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

MAX_FREQUENCY_STEPS = 1000.0  # longest rotary wavelength is about 2 pi times this many steps


class LevelEmbedding(nn.Module):
    """Noise levels (...) in [0, 1] -> (..., E): sinusoids of 1000 k and a small MLP."""

    frequencies: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        frequencies = torch.exp(-math.log(10000) * torch.arange(size // 2) / (size // 2)) * 1000
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.Linear(size, size), nn.SiLU())

    def forward(self, levels: Tensor) -> Tensor:
        """(...) -> (..., E)."""
        angles = levels.unsqueeze(-1) * self.frequencies
        return self.mlp(torch.cat([angles.sin(), angles.cos()], dim=-1))


def rotary_angles(steps: Tensor, head_size: int) -> Tensor:
    """(..., head_size / 2) angles of absolute control steps (...)."""
    half = head_size // 2
    exponents = torch.arange(half, device=steps.device) / half
    return steps.float().unsqueeze(-1) * MAX_FREQUENCY_STEPS**-exponents


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate (B, heads, T, head_size) by (B or 1, T, head_size / 2) angles."""
    cos, sin = angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Modulation(nn.Module):
    """AdaLN-zero: level embedding -> six vectors per token; the two gates start at zero."""

    def __init__(self, level_size: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(level_size, 6 * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, level: Tensor) -> tuple[Tensor, ...]:
        """(..., E) -> shift, scale, gate of the attention, then of the MLP, each (..., D)."""
        return self.linear(level).chunk(6, dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer-normalised x, scaled and shifted per token."""
    return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


class FeedForward(nn.Module):
    """Linear, squared ReLU (So et al. 2021), linear."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.rise = nn.Linear(width, expansion * width)
        self.fall = nn.Linear(expansion * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.fall(F.relu(self.rise(x)).square())


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention in float32 even under autocast: the bfloat16 kernel's backward is slow on CPUs."""
    with torch.autocast(q.device.type, enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, D) -> (B, heads, T, head_size)."""
    return rearrange(x, "b t (n d) -> b n t d", n=heads)


class Block(nn.Module):
    """Self-attention and MLP over tokens; may also attend to keys and values from elsewhere."""

    def __init__(self, *, width: int, heads: int, level_size: int, expansion: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = Modulation(level_size, width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp = FeedForward(width, expansion)

    def forward(
        self,
        x: Tensor,
        level: Tensor,
        angles: Tensor,
        *,
        mask: Tensor | None = None,
        extra: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Tokens after the block, and their own rotated keys and their values.

        Args:
            x: (B, T, D).
            level: (B, T, E) level embedding.
            angles: (B or 1, T, head_size / 2) of the tokens' steps.
            mask: (.., T, T' + T) true where a token may look.
            extra: keys, already rotated, and values, each (B, heads, T', head_size), put first.
        """
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(level)
        qkv = self.qkv(modulate(x, shift, scale)).chunk(3, dim=-1)
        q, k, v = (split_heads(part, self.heads) for part in qkv)
        q, k = rotate(q, angles), rotate(k, angles)
        keys = k if extra is None else torch.cat([extra[0], k], dim=2)
        values = v if extra is None else torch.cat([extra[1], v], dim=2)
        attended = attend(q, keys, values, mask)
        x = x + gate * self.out(rearrange(attended, "b n t d -> b t (n d)"))
        return x + mlp_gate * self.mlp(modulate(x, mlp_shift, mlp_scale)), (k, v)
