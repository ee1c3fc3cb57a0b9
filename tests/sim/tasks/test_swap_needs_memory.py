"""The claim behind swap: a network that knows what to remember solves it, one that does not fails.

Behaviour cloning on privileged low-dimensional observations: the hand and the fruits' poses, with
or without the oracle (plates at the start, moves made). Same network, data, steps and seeds.

    pytest -m slow tests/sim/tasks/test_swap_needs_memory.py -s
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from sim.arm.environment import ArmEnvironment
from sim.experts.scripted_hand import ScriptedHand
from sim.tasks.swap import Swap

NUM_DEMONSTRATIONS, NUM_ROLLOUTS = 250, 30
CHUNK, NUM_EXECUTED = 8, 4
NUM_STEPS, BATCH_SIZE, LEARNING_RATE = 6000, 512, 1e-3
FIRST_TEST_SEED = 100_000


@dataclass(frozen=True)
class Demonstrations:
    """Episodes stacked: (E, T, D) of what is seen, of the oracle and of the actions."""

    seen: np.ndarray
    oracle: np.ndarray
    actions: np.ndarray


def environment() -> ArmEnvironment:
    return ArmEnvironment(Swap(apple_first=True), features=("state", "objects", "oracle"))


def demonstrate(world: ArmEnvironment) -> Demonstrations:
    expert = ScriptedHand(world)
    episodes, seed = [], 0
    while len(episodes) < NUM_DEMONSTRATIONS:
        observation = world.reset(seed)
        expert.reset(seed)
        steps, result = [], None
        while result is None or not result.terminated:
            action = expert.act(observation)
            steps.append((seen(observation), observation["oracle"], action))
            result = world.step(action)
            observation = result.observation
        if result.success:
            episodes.append([np.stack(part) for part in zip(*steps, strict=True)])
        seed += 1
    return Demonstrations(*(np.stack(part) for part in zip(*episodes, strict=True)))


def seen(observation) -> np.ndarray:
    return np.concatenate([observation["state"], observation["objects"]])


class Clone:
    """A multilayer perceptron from one observation to a chunk of actions, trained with L1."""

    def __init__(self, inputs: np.ndarray, actions: np.ndarray) -> None:
        torch.manual_seed(0)
        x = torch.from_numpy(inputs.reshape(-1, inputs.shape[-1])).float()
        chunks = [
            np.minimum(np.arange(actions.shape[1]) + i, actions.shape[1] - 1) for i in range(CHUNK)
        ]
        y = (
            torch.from_numpy(np.stack([actions[:, i] for i in chunks], axis=2))
            .float()
            .flatten(0, 1)
        )
        self._shift, self._scale = x.mean(0), x.std(0) + 1e-3
        self._middle, self._spread = y.mean((0, 1)), y.std((0, 1)) + 1e-3
        x, y = (x - self._shift) / self._scale, ((y - self._middle) / self._spread).flatten(1)
        self._net = nn.Sequential(
            nn.Linear(x.shape[1], 512), nn.GELU(),
            nn.Linear(512, 512), nn.GELU(),
            nn.Linear(512, 512), nn.GELU(),
            nn.Linear(512, y.shape[1]),
        )  # fmt: skip
        optimizer = torch.optim.AdamW(self._net.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, NUM_STEPS)
        for _ in range(NUM_STEPS):
            rows = torch.randint(len(x), (BATCH_SIZE,))
            loss = (self._net(x[rows] + 0.02 * torch.randn_like(x[rows])) - y[rows]).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        self.loss = float(loss.detach())

    @torch.no_grad()
    def chunk(self, inputs: np.ndarray) -> np.ndarray:
        x = (torch.from_numpy(inputs).float() - self._shift) / self._scale
        return (self._net(x).view(CHUNK, -1) * self._spread + self._middle).numpy()


def count(world: ArmEnvironment, clone: Clone, *, with_oracle: bool) -> tuple[int, list[int]]:
    """Successes, and the moves made in each rollout."""
    num_successes, moves = 0, []
    for seed in range(FIRST_TEST_SEED, FIRST_TEST_SEED + NUM_ROLLOUTS):
        observation, result, waiting = world.reset(seed), None, []
        while result is None or not result.terminated:
            if not waiting:
                oracle = observation["oracle"][: None if with_oracle else 0]
                waiting = list(clone.chunk(np.concatenate([seen(observation), oracle])))
                waiting = waiting[:NUM_EXECUTED]
            result = world.step(waiting.pop(0))
            observation = result.observation
        num_successes += result.success
        moves.append(world.arm_task.memory.num_moves)
    return num_successes, moves


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_swap_is_solved_with_memory_and_not_without():
    world = environment()
    data = demonstrate(world)
    with_oracle = np.concatenate([data.seen, data.oracle], axis=-1)
    knowing = Clone(with_oracle, data.actions)
    num_knowing, moves_knowing = count(world, knowing, with_oracle=True)
    print(f"with the oracle: {num_knowing} of {NUM_ROLLOUTS}, moves {moves_knowing}")
    forgetful = Clone(data.seen, data.actions)
    num_forgetful, moves_forgetful = count(world, forgetful, with_oracle=False)
    print(f"without: {num_forgetful} of {NUM_ROLLOUTS}, moves {moves_forgetful}")
    assert num_knowing >= 28
    assert num_forgetful <= 2
