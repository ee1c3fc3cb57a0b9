"""The denoiser: a causal context stack and a plan stack that reads it.

    context  |cam cam state act| |cam cam state act| ...   causal over steps, both ways within one
                  | keys and values, computed once and kept
    plan     a_t  a_t+1 ... a_t+H-1                        both ways inside the plan

Every token carries its own noise level, which enters by AdaLN-zero (Peebles & Xie 2023) per token.
Positions are rotary by absolute control step (Su et al. 2021), so shifting the plan re-embeds
nothing and an episode may run past the training length. The context never reads the plan: its keys
and values serve every denoising call until the next observation.

B batch, W context steps, S sources, N = W S context tokens (W if pooled), M plans per window,
H horizon, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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


@dataclass
class Context:
    """What the plan reads: keys and values per plan layer, and the step of every token.

    Attributes:
        layers: per plan layer, rotated keys and values (B, heads, N, head_size).
        steps: (B or 1, N) absolute control step of each context token.
        summary: (B, N', D) what the context stack made of the newest N' <= N tokens.
    """

    layers: list[tuple[Tensor, Tensor]]
    steps: Tensor
    summary: Tensor

    def present(self, steps: Tensor) -> Tensor:
        """(B, D) the summary of the token of each plan's first control step, steps (B, 1)."""
        known = self.steps[:, -self.summary.shape[1] :]
        index = (known == steps).int().argmax(1)  # (B or 1,) or (B,)
        return self.summary[torch.arange(len(self.summary), device=index.device), index]


class Denoiser(nn.Module):
    """(noisy plan, its levels, context) -> prediction for every plan token.

    Args:
        source_sizes: feature size of each context source, in order; the executed action last.
        action_size: A.
        width, heads: D and attention heads; D / heads must be even.
        context_layers, plan_layers: blocks in each stack.
        memory: W, steps that a context token can look back, itself included.
        level_size: E.
        expansion: hidden size of the MLPs over D.
        pooled: one token a control step, the sum of its sources, instead of one a source: a memory
            of a whole episode for the price of one of few steps. Each source keeps its own level.
        guessed_actions: where pooled, actions that `guess` tells from a step's token; 0 for none.
    """

    def __init__(
        self,
        *,
        source_sizes: list[int],
        action_size: int,
        memory: int,
        width: int = 128,
        heads: int = 4,
        context_layers: int = 2,
        plan_layers: int = 6,
        level_size: int = 32,
        expansion: int = 4,
        pooled: bool = False,
        guessed_actions: int = 0,
    ) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"width {width} must be a multiple of twice the heads, 2 x {heads}")
        sizes = {"width": width, "heads": heads, "level_size": level_size, "expansion": expansion}
        self.memory, self.source_sizes = memory, list(source_sizes)
        self.width, self.heads, self.head_size = width, heads, width // heads
        self.pooled, self.tokens_per_step = pooled, 1 if pooled else len(source_sizes)
        self.inputs = nn.ModuleList(nn.Linear(size, width) for size in source_sizes)
        self.source = nn.Parameter(0.5 * torch.randn(len(source_sizes), width))
        self.context_level, self.plan_level = LevelEmbedding(level_size), LevelEmbedding(level_size)
        if pooled:
            self.pool_levels = nn.Linear(len(source_sizes) * level_size, level_size)
        self.context_blocks = nn.ModuleList(Block(**sizes) for _ in range(context_layers))
        self.plan_input = nn.Linear(action_size, width)
        if pooled:  # the newest step's only token: straight to the plan, besides being attended to
            self.present = nn.Sequential(
                nn.Linear(width, expansion * width), nn.SiLU(), nn.Linear(expansion * width, width)
            )
        if guessed_actions and not pooled:
            raise ValueError("guessed_actions need pooled: one token a control step")
        self.guess = nn.Linear(width, guessed_actions * action_size) if guessed_actions else None
        self.plan_blocks = nn.ModuleList(Block(**sizes) for _ in range(plan_layers))
        self.read = nn.ModuleList(
            nn.Linear(width, 2 * width, bias=False) for _ in range(plan_layers)
        )
        self.head_modulation = nn.Linear(level_size, 2 * width)
        self.head = nn.Linear(width, action_size)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def compile_stacks(self) -> None:
        """Compile what training spends its time in; sampling works either way."""
        self._run_plan = torch.compile(self._run_plan, dynamic=False)  # type: ignore[method-assign]
        self.read_context = torch.compile(self.read_context, dynamic=False)  # type: ignore[method-assign]

    def context_tokens(self, sources: list[Tensor]) -> Tensor:
        """S noised features (B, W, F_s) -> tokens (B, N, D), step by step."""
        tokens = [
            linear(x) + embedding
            for linear, x, embedding in zip(self.inputs, sources, self.source, strict=True)
        ]
        if self.pooled:
            return torch.stack(tokens).sum(0)
        return rearrange(torch.stack(tokens, dim=2), "b w s d -> b (w s) d")

    def _embed_levels(self, levels: Tensor) -> Tensor:
        """(B, W, S) -> (B, N, E)."""
        if self.pooled:
            return self.pool_levels(self.context_level(levels).flatten(2))
        return self.context_level(levels.flatten(1))

    def read_context(
        self,
        tokens: Tensor,
        levels: Tensor,
        steps: Tensor,
        *,
        past: list[tuple[Tensor, Tensor]] | None = None,
        past_steps: Tensor | None = None,
    ) -> tuple[Context, list[tuple[Tensor, Tensor]]]:
        """Run the context stack over new tokens.

        Args:
            tokens: (B, N, D) from `context_tokens`.
            levels: (B, W, S).
            steps: (B or 1, W) absolute control steps.
            past: per context layer, keys and values of earlier tokens (B, heads, N', head_size).
            past_steps: (B or 1, N') the steps of those tokens.

        Returns:
            What the plan reads of the new tokens, and their own keys and values per context layer.
        """
        steps = steps.repeat_interleave(self.tokens_per_step, dim=1)
        seen = steps if past_steps is None else torch.cat([past_steps, steps], dim=1)
        distance = steps.unsqueeze(-1) - seen.unsqueeze(1)  # (B or 1, N, N' + N)
        mask = ((distance >= 0) & (distance < self.memory)).unsqueeze(1)
        level, x, own = self._embed_levels(levels), tokens, []
        angles = rotary_angles(steps, self.head_size)
        for i, block in enumerate(self.context_blocks):
            x, kv = block(x, level, angles, mask=mask, extra=past[i] if past else None)
            own.append(kv)
        x = F.layer_norm(x, (self.width,))
        layers = []
        for read in self.read:
            key, value = (split_heads(part, self.heads) for part in read(x).chunk(2, dim=-1))
            layers.append((rotate(key, angles), value))
        return Context(layers, steps, x), own

    def forward(self, plan: Tensor, levels: Tensor, steps: Tensor, context: Context) -> Tensor:
        """One call of the plan stack.

        Args:
            plan: (B, H, A) noisy actions at unit scale.
            levels: (B, H).
            steps: (B, H) absolute control steps of the slots.
            context: of the same batch. A plan token sees steps up to its plan's first slot only.

        Returns:
            (B, H, A) the network's output; what it means is the prediction type's business.
        """
        now = self.present(context.present(steps[:, :1])) if self.pooled else None
        present = steps[:, :1].unsqueeze(-1)  # (B, 1, 1)
        seen = context.steps.unsqueeze(1)  # (B or 1, 1, N)
        visible = (seen <= present) & (seen > present - self.memory)
        if bool(visible.all()):
            return self._run_plan(plan, levels, steps, context.layers, None, now)
        own = torch.ones(len(plan), 1, plan.shape[1], dtype=torch.bool, device=plan.device)
        mask = torch.cat([visible.expand(len(plan), -1, -1), own], dim=-1).unsqueeze(1)
        return self._run_plan(plan, levels, steps, context.layers, mask, now)

    def _run_plan(
        self,
        plan: Tensor,
        levels: Tensor,
        steps: Tensor,
        layers: list[tuple[Tensor, Tensor]],
        mask: Tensor | None,
        now: Tensor | None,
    ) -> Tensor:
        level = self.plan_level(levels)
        angles = rotary_angles(steps, self.head_size)
        x = self.plan_input(plan)
        if now is not None:
            x = x + now.unsqueeze(1)
        for block, kv in zip(self.plan_blocks, layers, strict=True):
            x, _ = block(x, level, angles, mask=mask, extra=kv)
        shift, scale = self.head_modulation(level).chunk(2, dim=-1)
        return self.head(modulate(x, shift, scale))
