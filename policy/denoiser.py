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

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from policy.attention import Block, LevelEmbedding, modulate, rotary_angles, rotate, split_heads
from policy.auxiliary_loss import keypose_size


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
        """(B, T, D) the summary of the token of each control step of `steps` (B, T)."""
        known = self.steps[:, -self.summary.shape[1] :].unsqueeze(1)  # (B or 1, 1, N')
        index = (known == steps.unsqueeze(-1)).int().argmax(-1)  # (B, T)
        return self.summary.gather(1, index.unsqueeze(-1).expand(-1, -1, self.summary.shape[-1]))


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
        recalls: where pooled, whether `recall` tells the clean sources of a step from its token.
        keyposes: where pooled, next positions of the hand at a switch of the gripper that `keypose`
            tells from a step's token; 0 for none. See `auxiliary_loss`.
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
        recalls: bool = False,
        keyposes: int = 0,
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
        if (guessed_actions or recalls or keyposes) and not pooled:
            raise ValueError(
                "guessed_actions, recalls and keyposes need pooled: one token a control step"
            )
        self.guess = nn.Linear(width, guessed_actions * action_size) if guessed_actions else None
        self.recall = nn.Linear(width, sum(source_sizes[:-1])) if recalls else None
        entries = keyposes * keypose_size(action_size) if keyposes else 0
        self.keypose = nn.Linear(width, entries) if keyposes else None
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

        The M plans of a window lie side by side in one sequence; each looks at itself and at its
        own past only. So the window's keys and values are there once, whatever M is.

        Args:
            plan: (B M, H, A) noisy actions at unit scale, a window's plans one after the other.
            levels: (B M, H).
            steps: (B M, H) absolute control steps of the slots.
            context: of B windows. A plan token sees steps up to its plan's first slot only.

        Returns:
            (B M, H, A) the network's output; what it means is the prediction type's business.
        """
        num_plans = len(plan) // len(context.summary)
        first = steps[:, :1].expand(-1, steps.shape[1])
        tokens, level, step, present = (
            rearrange(x, "(b m) h ... -> b (m h) ...", m=num_plans)
            for x in (plan, levels, steps, first)
        )
        now = self.present(context.present(present)) if self.pooled else None
        seen, present = context.steps.unsqueeze(1), present.unsqueeze(-1)  # (B or 1, 1, N)
        visible = (seen <= present) & (seen > present - self.memory)  # (B, M H, N)
        mask = None
        if num_plans > 1 or not bool(visible.all()):
            owner = torch.arange(num_plans, device=plan.device).repeat_interleave(steps.shape[1])
            own = (owner.unsqueeze(-1) == owner).expand(len(visible), -1, -1)
            mask = torch.cat([visible, own], dim=-1).unsqueeze(1)
        output = self._run_plan(tokens, level, step, context.layers, mask, now)
        return rearrange(output, "b (m h) a -> (b m) h a", m=num_plans)

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
            x = x + now
        for block, kv in zip(self.plan_blocks, layers, strict=True):
            x, _ = block(x, level, angles, mask=mask, extra=kv)
        shift, scale = self.head_modulation(level).chunk(2, dim=-1)
        return self.head(modulate(x, shift, scale))
