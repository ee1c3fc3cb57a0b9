"""Auxiliary losses of the context stack: what its tokens tell besides what the plan reads of them.

A plan is denoised at few steps of a window; these are asked at every step, and none is used to act.

    guess    later actions, some steps apart: what is seen and remembered tells them, not the last
             motion
    recall   the clean features of sources that are noisy: what was seen is kept
    keypose  where the hand will be when the gripper next opens or closes, known in hindsight: what
             a grasp needs to know, whenever it comes (keyframes of James & Davison, 2022)

B batch, W context steps, R rows of actions, A action size, F_s features of a source, N keyposes, P
entries of one. Action row j + 1 is executed at tick j.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

SQUARED_BELOW = 0.02  # at unit scale: smaller errors of a keypose count by their square


def keypose_size(action_size: int) -> int:
    """P. An action begins with the hand's position, three entries or all but the last, and ends
    with the gripper.

    Raises:
        ValueError: there is nothing beside the gripper.
    """
    if action_size < 2:
        raise ValueError("keyposes need actions of a position and a gripper, got one entry")
    return min(3, action_size - 1)


def guess_loss(guess: Tensor, actions: Tensor, inside: Tensor, *, stride: int) -> Tensor:
    """Mean squared error of guessed actions.

    Args:
        guess: (B, W, G A), actions of the rows `stride`, 2 `stride`, ... after each tick's.
        actions: (B, R, A) at unit scale.
        inside: (B, W) bool, ticks that count.
    """
    told = rearrange(guess, "b w (g a) -> b w g a", a=actions.shape[-1])
    ahead = stride * torch.arange(1, told.shape[2] + 1)
    rows = (torch.arange(told.shape[1])[:, None] + ahead).clamp(max=actions.shape[1] - 1)
    target = actions[:, rows.to(actions.device)]
    return _mean((told.float() - target).square().mean((-1, -2)), inside)


def recall_loss(recalled: Tensor, features: list[Tensor], unseen: Tensor) -> Tensor:
    """Squared error of recalled sources, averaged by how far they are unseen.

    Args:
        recalled: (B, W, sum of F_s) of the first sources, side by side.
        features: their clean values, (B, W, F_s) each.
        unseen: (B, W, S) weight of each, its noise level.
    """
    parts = recalled.float().split([x.shape[-1] for x in features], dim=-1)
    errors = [(part - x).square().mean(-1) for part, x in zip(parts, features, strict=True)]
    return _mean(torch.stack(errors, dim=-1), unseen)


def keypose_loss(told: Tensor, actions: Tensor, inside: Tensor) -> Tensor:
    """Absolute error, squared where it is tiny, of the hand's position at the next keyposes.

    Args:
        told: (B, W, N P).
        actions: (B, R, A) at unit scale: position first, gripper last, half open at 0.
        inside: (B, W) bool, ticks that count; of them those count that have such a keypose.
    """
    size = keypose_size(actions.shape[-1])
    guess = rearrange(told.float(), "b w (n p) -> b w n p", p=size)
    position, known = next_keyposes(actions, told.shape[1], num_keyposes=guess.shape[2])
    error = F.smooth_l1_loss(guess, position, beta=SQUARED_BELOW, reduction="none").mean(-1)
    return _mean(error, known & inside.unsqueeze(-1))


def next_keyposes(actions: Tensor, ticks: int, *, num_keyposes: int) -> tuple[Tensor, Tensor]:
    """Where the hand is at the next `num_keyposes` switches of the gripper after each tick.

    Args:
        actions: (B, R, A) at unit scale: position first, gripper last, half open at 0.
        ticks: W, fewer than R.

    Returns:
        Positions (B, W, N, P), and whether there is such a switch in these rows (B, W, N) bool.
    """
    size, last = keypose_size(actions.shape[-1]), actions.shape[1] - 1
    is_open = actions[..., -1] > 0
    has_switched = F.pad(is_open[:, 1:] != is_open[:, :-1], (1, 0))
    count = has_switched.long().cumsum(-1)  # (B, R) switches up to each row
    wanted = count[:, :ticks, None] + torch.arange(1, num_keyposes + 1, device=count.device)
    row = torch.searchsorted(count, wanted.flatten(1).contiguous())
    index = row.clamp(max=last).unsqueeze(-1).expand(-1, -1, size)
    position = actions[..., :size].gather(1, index)
    shape = {"w": ticks, "n": num_keyposes}
    return (
        rearrange(position, "b (w n) p -> b w n p", **shape),
        rearrange(row <= last, "b (w n) -> b w n", **shape),
    )


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1)
