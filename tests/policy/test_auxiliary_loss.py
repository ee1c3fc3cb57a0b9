"""What the context stack is asked besides: keyposes (guesses and recalled sources: see the tests of
whole-episode memory)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policy.auxiliary_loss import SQUARED_BELOW, keypose_loss, keypose_size, next_keyposes

TICKS = 6


def actions_of(*grippers: list[float]) -> Tensor:
    """(B, R, 4): the position of row r is (r, r, r) plus 100 an episode, then the gripper."""
    gripper = torch.tensor(grippers)
    batch, rows = gripper.shape
    place = torch.arange(rows).float() + 100 * torch.arange(batch)[:, None]
    return torch.cat([place[..., None].expand(-1, -1, 3), gripper[..., None]], dim=-1)


def test_keyposes_are_where_the_gripper_switches_next() -> None:
    actions = actions_of([1, 1, 1, -1, -0.5, 0.3, 1, 1], [1, -1, -1, -1, -1, -1, -1, 1])
    position, known = next_keyposes(actions, TICKS, num_keyposes=2)
    assert position.shape == (2, TICKS, 2, 3)
    assert known.shape == (2, TICKS, 2)
    rows = [[3, 5], [3, 5], [3, 5], [5, None], [5, None], [None, None]]
    others = [[101, 107], [107, None], [107, None], [107, None], [107, None], [107, None]]
    for b, expected in enumerate((rows, others)):
        for tick, wanted in enumerate(expected):
            for n, place in enumerate(wanted):
                assert bool(known[b, tick, n]) == (place is not None)
                if place is not None:
                    assert position[b, tick, n].tolist() == [place] * 3


def test_the_loss_is_the_error_of_known_keyposes_inside_the_episode() -> None:
    actions = actions_of([1, 1, 1, -1, -1, 1, 1, 1])
    position, known = next_keyposes(actions, TICKS, num_keyposes=2)
    inside = torch.tensor([[False, True, True, True, True, True]])
    counted = (known & inside[..., None])[..., None]
    nonsense = torch.where(counted, position, 1e6).flatten(2)  # where nothing is known
    assert keypose_loss(nonsense, actions, inside) == 0
    off = torch.where(counted, position + 0.5, 1e6).flatten(2)
    assert keypose_loss(off, actions, inside) == pytest.approx(0.5 - SQUARED_BELOW / 2)


def test_a_gripper_that_never_switches_costs_nothing() -> None:
    actions = actions_of([1.0] * 8)
    told = torch.randn(1, TICKS, 3, requires_grad=True)
    loss = keypose_loss(told, actions, torch.ones(1, TICKS, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert told.grad is not None
    assert not told.grad.any()


def test_a_keypose_needs_a_position() -> None:
    assert [keypose_size(size) for size in (2, 3, 4, 10)] == [1, 2, 3, 3]
    with pytest.raises(ValueError, match="a position and a gripper"):
        keypose_size(1)
