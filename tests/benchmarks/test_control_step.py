"""One control step on one thread, and LeRobot's Diffusion Policy in the same process.

    pytest -m benchmark tests/benchmarks/test_control_step.py -s

Rolling mode of the default state configuration with random weights: taking in an observation and
the action executed before it, one network call, the plan in the schema's unit. The peer is
DiffusionPolicy over the same values with about as many parameters, ten DDIM calls for eight
actions; per action the ratio of the means is printed, and the worst steps are compared, because a
chunk pays for all of its actions in one control step. Times are the process's own on one thread,
so other work on the machine hardly shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import policy
from policy.checkpoint import LoadedPolicy, ModelDescription
from policy.construction import build
from policy.interface import Request
from teleop_data.schema import Feature, Schema
from tests.policy.tiny_models import statistics

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # the peer's imports
]
CONFIGS = Path(next(iter(policy.__path__))) / "configs"
AGENT, BLOCK, ACTION, EXECUTED = 2, 3, 2, 8
NUM_ACTIONS, NUM_WARM_UP = 96, 24  # multiples of the peer's chunk


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def ours() -> LoadedPolicy:
    """The default state model on Push-T's sizes, in rolling mode."""
    schema = Schema(
        features=(
            Feature(name="state", shape=(AGENT + BLOCK,)),
            Feature(name="action", shape=(ACTION,), role="action"),
        ),
        rate_hz=10.0,
    )
    config = OmegaConf.to_container(OmegaConf.load(CONFIGS / "model" / "state.yaml"))
    planning = OmegaConf.to_container(OmegaConf.load(CONFIGS / "planning" / "default.yaml"))
    sizes = {"state": AGENT + BLOCK, "action": ACTION}
    model = ModelDescription(
        model=config,  # type: ignore[arg-type]
        planning={},
        schema=schema,
        statistics={name: statistics(size) for name, size in sizes.items()},
    ).build()
    return LoadedPolicy(model, build(planning["rolling"]))  # type: ignore[index, call-overload]


def peers(num_parameters: int) -> torch.nn.Module:
    """LeRobot's policy, DDIM with ten calls; the width whose size comes closest."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    def with_width(width: int) -> DiffusionPolicy:
        return DiffusionPolicy(
            DiffusionConfig(
                input_features={
                    "observation.state": PolicyFeature(FeatureType.STATE, (AGENT,)),
                    "observation.environment_state": PolicyFeature(FeatureType.ENV, (BLOCK,)),
                },
                output_features={"action": PolicyFeature(FeatureType.ACTION, (ACTION,))},
                n_obs_steps=2,
                horizon=16,
                n_action_steps=EXECUTED,
                down_dims=(width, 2 * width, 4 * width),
                noise_scheduler_type="DDIM",
                num_inference_steps=10,
                device="cpu",
            )
        )

    candidates = [with_width(width) for width in (24, 32, 40, 48, 64)]
    return min(candidates, key=lambda p: abs(size(p) - num_parameters)).eval()


def size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def times_ms(act: Callable[[int], None]) -> np.ndarray:
    """(NUM_ACTIONS,) processor time of each action, after a warm-up."""
    times = []
    for step in range(NUM_WARM_UP + NUM_ACTIONS):
        start_s = time.process_time()
        act(step)
        times.append(1e3 * (time.process_time() - start_s))
    return np.array(times[NUM_WARM_UP:])


def test_a_control_step_takes_ten_milliseconds_and_none_as_long_as_the_peers_worst() -> None:
    loaded = ours()
    session, rng = loaded.start_session(0), np.random.default_rng(0)
    plans = []

    def step_ours(step: int) -> None:
        request = Request(
            step=step,
            observation={"state": rng.uniform(-1, 1, AGENT + BLOCK).astype(np.float32)},
            executed=plans[-1].actions[:1] if plans else None,
        )
        plans.append(session.step(request))

    peer = peers(size(loaded.model))
    torch.manual_seed(0)

    @torch.inference_mode()
    def step_peer(_: int) -> None:
        peer.select_action(
            {
                "observation.state": torch.rand(1, AGENT),
                "observation.environment_state": torch.rand(1, BLOCK),
            }
        )

    own_ms, peer_ms = times_ms(step_ours), times_ms(step_peer)
    calls = [plan.network_calls for plan in plans[NUM_WARM_UP:]]
    assert calls == [1] * NUM_ACTIONS
    ratio = own_ms.mean() / peer_ms.mean()
    print(
        f"\nours: {size(loaded.model) / 1e6:.2f} M parameters, median {np.median(own_ms):.2f} ms, "
        f"mean {own_ms.mean():.2f} ms, 95 % {np.percentile(own_ms, 95):.2f} ms an action"
        f"\nDiffusionPolicy, DDIM-10: {size(peer) / 1e6:.2f} M parameters, "
        f"mean {peer_ms.mean():.2f} ms an action, worst {peer_ms.max():.1f} ms"
        f"\nratio of the means {ratio:.2f}, of the worst steps {own_ms.max() / peer_ms.max():.2f}"
    )
    assert 0.5 < size(peer) / size(loaded.model) < 2
    assert np.median(own_ms) <= 10
    assert own_ms.max() < peer_ms.max()
