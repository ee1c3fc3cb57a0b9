"""Every baseline, tiny: it learns, sees what it should and nothing else, and acts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from policy.baselines.baseline import Baseline, DropOut
from policy.baselines.lock_step import BaselineLockStep
from policy.checkpoint import LoadedPolicy, load_policy, save_checkpoint
from policy.construction import build
from policy.interface import Request
from policy.planning import ChunkPlanning
from tests.contracts.policy_contract import PolicyContract
from tests.policy.baselines.tiny_baselines import (
    DROP_OUT,
    FEATURES,
    NAMES,
    SCHEMA,
    batch_for,
    built,
    described,
    observations,
)
from tests.policy.tiny_models import ROLLING


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planning_of(model: Baseline) -> ChunkPlanning:
    num_calls = 3 if model.denoises else 1
    return ChunkPlanning(num_calls=num_calls, execution_horizon=min(4, model.horizon))


def act(
    model: Baseline,
    *,
    rows: list[int],
    levels: dict[int, list[float]] | None = None,
    spoil: dict[int, str] | None = None,
    steps: int = 10,
) -> np.ndarray:
    """(steps, B, A) first actions of episodes, of which those in `rows` are alive.

    `levels` by step, 0 elsewhere; `spoil` names a source whose pixels are something else at a step.
    """
    lock_step = BaselineLockStep(model.eval(), planning_of(model), seeds=[50 + r for r in rows])
    actions = []
    for step in range(steps):
        seen = observations(rows, step=step)
        if spoil and step in spoil:
            seen[spoil[step]] = 255 - seen[spoil[step]]
        at = (levels or {}).get(step, [0.0, 0.0, 0.0])
        plan, plan_levels, _ = lock_step.step(
            step,
            observation=seen,
            levels=np.tile(np.array(at, np.float32), (len(rows), 1)),
            executed=np.zeros((len(rows), min(step, 1), 2), np.float32),
        )
        assert plan.shape == (len(rows), model.horizon, 2)
        assert plan_levels.shape == (model.horizon,)
        actions.append(plan[:, 0])
    return np.stack(actions)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls(name: str) -> None:
    """On windows whose actions follow from what is seen, and further than without seeing."""
    model = built(name)
    batch = batch_for(model, size=32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(80):
        loss = model(batch, generator=generator(step)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    first, last = np.mean(losses[:5]), np.mean(losses[-5:])
    assert np.isfinite(losses).all()
    assert last < (0.5 * first if first > 0 and name != "rnn" else first - 1)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_a_function_of_the_generator(name: str) -> None:
    model = built(name, drop_out=DROP_OUT)
    batch = batch_for(model)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = model.loss(batch, generator=generator(3)).loss
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(one, model.loss(batch, generator=generator(3)).loss)
    assert not torch.equal(one, model.loss(batch, generator=generator(4)).loss)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_looks_at_the_plan_of_the_newest_tick(name: str) -> None:
    """Actions that lie in the plan count, those before it do not."""
    model = built(name).eval()
    batch = batch_for(model)

    def loss_with(row: int) -> float:
        changed = {**batch, "action": batch["action"].clone()}
        changed["action"][:, row] += 0.7
        return float(model.loss(changed, generator=generator()).loss.detach())

    plain = float(model.loss(batch, generator=generator()).loss.detach())
    context, horizon = model.context, model.horizon
    first = {"diffusion": context - 1, "rnn": 1}.get(name, context)
    counted = [row for row in range(context + horizon) if loss_with(row) != plain]
    assert counted == list(range(first, context + horizon))


def test_the_rnn_leaves_padding_out() -> None:
    """An episode shorter than the window: neither its padded ticks nor their actions matter."""
    model = built("rnn").eval()
    batch = batch_for(model, padded=3)
    plain = model.loss(batch, generator=generator()).loss
    changed = {name: values.clone() for name, values in batch.items()}
    changed["state"][:, :3] += 1
    changed["front"][:, :3] += 1
    changed["action"][:, :4] += 1
    assert torch.equal(plain, model.loss(changed, generator=generator()).loss)
    changed["action"][:, 4] += 1
    assert not torch.equal(plain, model.loss(changed, generator=generator()).loss)


def test_the_rnn_acts_as_it_was_trained() -> None:
    """Step by step through an episode its mixture is that of the whole sequence."""
    model = built("rnn").eval()
    batch = batch_for(model, size=2)
    features = model.encode(batch)
    whole = model._mixture(features).component_distribution.base_dist.loc  # type: ignore[attr-defined]
    memory = model.start_memory(2)
    for tick in range(model.context):
        memory.append([values[:, tick] for values in features])
        one = memory._mixture.component_distribution.base_dist.loc  # type: ignore[attr-defined]
        torch.testing.assert_close(one, whole[:, tick])


def test_a_long_history_sees_every_stride() -> None:
    model = built("diffusion_long").eval()
    batch = batch_for(model)
    plain = model.loss(batch, generator=generator()).loss
    seen = []
    for tick in range(model.context):
        changed = {**batch, "front": batch["front"].clone()}
        changed["front"][:, tick] += 1
        if not torch.equal(model.loss(changed, generator=generator()).loss, plain):
            seen.append(tick)
    assert seen == [0, 3, 6]


def test_drop_out_draws_stretches() -> None:
    """In their shares, cameras alone and together, and as often in a short window as in a long."""
    rule = DropOut(share=0.3, share_all=0.2, mean_length=20, mean_gap=20)
    is_out = rule.draw(padding(12, 4000), 2, generator=generator())
    assert is_out.shape == (4000, 12, 2)
    assert is_out.dtype == torch.bool
    changes = (is_out[:, 1:] != is_out[:, :-1]).float().mean().item()
    assert changes < 1.5 * (0.3 + 0.2) / 20
    # half of the steps of a window with stretches
    both, either = is_out.all(-1).float().mean().item(), is_out.any(-1).float().mean().item()
    assert both == pytest.approx(0.2 * 0.5 + 0.8 * 0.15**2, abs=0.02)
    assert either == pytest.approx(0.2 * 0.5 + 0.8 * 0.2775, abs=0.02)
    newest = rule.draw(padding(1, 4000), 2, generator=generator()).any(-1).float().mean().item()
    assert newest == pytest.approx(either, abs=0.03)
    assert not DropOut(share=0, share_all=0).draw(padding(12), 2, generator=generator()).any()


def padding(context: int, batch: int = 99, *, padded: int = 0) -> torch.Tensor:
    """(B, W) which steps of a window lie before the episode."""
    return (torch.arange(context) < padded).expand(batch, -1)


def test_drop_out_is_drawn_over_the_episode() -> None:
    """What lasts begins as early after the first step whether padding precedes it or not."""
    rule = DropOut(share=0, share_all=1.0, mean_length=20, mean_gap=20, lasting=1.0)
    early = rule.draw(padding(40, 4000, padded=28), 1, generator=generator())[..., 0]
    assert (early[:, :28] == early[:, 28:29]).all()  # the first picture's copies
    assert not early[:, 28].any()  # it begins without
    share = 1 - (1 - 1 / 20) ** 11
    assert early[:, -1].float().mean().item() == pytest.approx(share, abs=0.03)
    late = dataclasses.replace(rule, episode=400)
    is_out = late.draw(padding(40, 4000), 1, generator=generator())[..., 0]
    assert is_out.all(1).float().mean() > 0.8  # most windows lie behind the onset
    assert (is_out[:, 1:] >= is_out[:, :-1]).all()
    assert not late.draw(padding(40, padded=39), 1, generator=generator())[:, -1].any()


@pytest.mark.parametrize("name", NAMES)
def test_drop_out_zeroes_cameras_and_nothing_else(name: str) -> None:
    model = built(name, drop_out=DROP_OUT)
    batch = batch_for(model, size=64)
    clean, dropped = model.encode(batch), model.training_features(batch, generator())
    assert torch.equal(dropped[2], clean[2])  # the state
    for camera in (0, 1):
        is_zero = (dropped[camera] == 0).all(-1)
        assert 0.03 < is_zero.float().mean() < 0.9
        assert torch.equal(dropped[camera][~is_zero], clean[camera][~is_zero])
        assert dropped[camera].shape[-1] == FEATURES
    never = built(name).training_features(batch, generator())
    assert all(torch.equal(a, b) for a, b in zip(never, clean, strict=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("drop_out", [None, DROP_OUT], ids=["plain", "drop_out"])
def test_pixels_of_a_flagged_camera_do_not_matter(name: str, drop_out: dict | None) -> None:
    """Unflagged they do, and a flag alone changes what is done."""
    model = built(name, drop_out=drop_out)
    flagged = {step: [0.0, 1.0, 0.0] for step in range(2, 10)}
    spoiled = dict.fromkeys(range(2, 10), "wrist")
    believed = act(model, rows=[0, 1])
    told = act(model, rows=[0, 1], levels=flagged)
    np.testing.assert_array_equal(told, act(model, rows=[0, 1], levels=flagged, spoil=spoiled))
    assert not np.array_equal(believed, act(model, rows=[0, 1], spoil=spoiled))
    assert not np.array_equal(believed, told)
    half = {step: [0.0, 0.4, 0.0] for step in flagged}
    np.testing.assert_array_equal(believed, act(model, rows=[0, 1], levels=half))


def test_a_flagged_source_shows_its_last_good_features_or_nothing() -> None:
    """Cameras show nothing after drop-out; before anything was seen so does every source."""
    for drop_out, expected in ((None, 1.0), (DROP_OUT, 0.0)):
        model = built("act", drop_out=drop_out)
        lock_step = BaselineLockStep(model.eval(), planning_of(model), seeds=[0])
        seen = []
        for value, level in ((9.0, 1.0), (1.0, 0.0), (2.0, 0.7), (3.0, 0.0)):
            features = [torch.full((1, size), value) for size in model.feature_sizes]
            levels = torch.tensor([[level, 0.0, level]])
            seen.append([float(x[0, 0]) for x in lock_step._visible(features, levels)])
        assert seen == [[0.0, 9.0, 0.0], [1.0, 1.0, 1.0], [expected, 2.0, 1.0], [3.0, 3.0, 3.0]]


@pytest.mark.parametrize("name", NAMES)
def test_together_as_alone(name: str) -> None:
    """An episode's actions do not depend on who runs beside it."""
    model = built(name)
    together = act(model, rows=[0, 1, 2])
    for row in range(3):
        alone = act(model, rows=[row])
        np.testing.assert_allclose(together[:, row], alone[:, 0], atol=1e-4)
    assert not np.allclose(together[:, 0], together[:, 1])


@pytest.mark.parametrize("name", NAMES)
def test_episodes_that_are_over_leave(name: str) -> None:
    model = built(name).eval()
    expected = act(model, rows=[0, 1, 2])
    lock_step = BaselineLockStep(model, planning_of(model), seeds=[50, 51, 52])
    rows = [0, 1, 2]
    for step in range(10):
        if step == 3:
            rows = [2, 1]
            lock_step.keep([2, 1])
        if step == 6:
            rows = [1]
            lock_step.keep([1])
        plan, _, _ = lock_step.step(
            step,
            observation=observations(rows, step=step),
            levels=np.zeros((len(rows), 3), np.float32),
            executed=np.zeros((len(rows), 0, 2), np.float32),
        )
        np.testing.assert_allclose(plan[:, 0], expected[step, rows], atol=1e-4)


def test_sampling_follows_the_planning() -> None:
    """More calls give another plan; a new one is made every execution horizon."""
    model = built("diffusion").eval()
    calls, plans = [], []
    for num_calls in (2, 5):
        planning = ChunkPlanning(num_calls=num_calls, execution_horizon=3)
        session = LoadedPolicy(model, planning).start_session(0)
        for step in range(7):
            seen = {k: v[0] for k, v in observations([0], step=step).items()}
            plan = session.step(Request(step=step, observation=seen))
            calls.append(plan.network_calls)
            if step == 0:
                plans.append(plan.actions)
    assert calls == [2, 0, 0, 2, 0, 0, 2, 5, 0, 0, 5, 0, 0, 5]
    assert not np.allclose(plans[0], plans[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_acts_as_its_model(name: str, tmp_path: Path) -> None:
    """And its weights are all there: another seed's model becomes the same."""
    description, model = described(name), built(name, seed=7)
    save_checkpoint(tmp_path / "it", description, model.state_dict(), provenance={})
    torch.manual_seed(8)
    loaded = load_policy(tmp_path / "it", inference="chunk", schema=SCHEMA)
    session, expected = loaded.start_session(3), LoadedPolicy(model, planning_of(model))
    own = expected.start_session(3)
    for step in range(6):
        seen = {k: v[0] for k, v in observations([0], step=step).items()}
        request = Request(step=step, observation=seen)
        np.testing.assert_array_equal(session.step(request).actions, own.step(request).actions)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_temperature_scales_the_noise_of_plans(temperature: float) -> None:
    """At 0 nothing of an episode's own noise is left."""
    model = built("diffusion").eval()
    planning = ChunkPlanning(num_calls=3, execution_horizon=4, temperature=temperature)
    lock_step = BaselineLockStep(model, planning, seeds=[1, 2])
    seen = {name: np.repeat(x, 2, axis=0) for name, x in observations([0], step=0).items()}
    nothing = np.zeros((2, 0, 2), np.float32)
    plans, *_ = lock_step.step(
        0, observation=seen, levels=np.zeros((2, 3), np.float32), executed=nothing
    )
    assert np.allclose(plans[0], plans[1], atol=1e-5) == (temperature == 0)


def test_what_is_refused(tmp_path: Path) -> None:
    model = built("act")
    with pytest.raises(ValueError, match="got 0.3 and 1"):
        BaselineLockStep(model, ChunkPlanning(num_calls=1, temperature=0.3), seeds=[0])
    with pytest.raises(ValueError, match="got 1.0 and 8"):
        BaselineLockStep(model, ChunkPlanning(num_calls=8), seeds=[0])
    with pytest.raises(ValueError, match="plans by chunks"):
        LoadedPolicy(model, build(ROLLING)).start_session(0)
    with pytest.raises(ValueError, match="horizon of 8"):
        BaselineLockStep(model, ChunkPlanning(num_calls=1, execution_horizon=9), seeds=[0])
    with pytest.raises(ValueError, match="mark"):
        LoadedPolicy(model, planning_of(model), mark="zeros")
    planning = ChunkPlanning(num_calls=1, execution_horizon=6)
    lock_step = BaselineLockStep(model.eval(), planning, seeds=[0])
    arguments = {
        "observation": observations([0], step=0),
        "levels": np.zeros((1, 3), np.float32),
        "executed": np.zeros((1, 0, 2), np.float32),
    }
    with pytest.raises(ValueError, match="plus delay 3"):
        lock_step.step(0, **arguments, delay=3)
    description = described("rnn")
    longer = {**description.model, "horizon": 2}
    with pytest.raises(ValueError, match="horizon 1, got 2"):
        type(description)(**{**vars(description), "model": longer}).build()
    nonsense = {**description.model, "baseline": {"_target_": "policy.planning.ChunkPlanning"}}
    with pytest.raises(ValueError, match="ChunkPlanning refuses"):
        type(description)(**{**vars(description), "model": nonsense}).build()


class BaselineContract(PolicyContract):
    """`PolicyContract` of a tiny baseline."""

    name: str

    def make_policy(self) -> LoadedPolicy:
        model = built(self.name, drop_out=DROP_OUT)
        return LoadedPolicy(model, planning_of(model))


class TestDiffusion(BaselineContract):
    name = "diffusion"


class TestDelayedDiffusion(BaselineContract):
    name, delay = "diffusion", 2


class TestLongDiffusion(BaselineContract):
    name = "diffusion_long"


class TestAct(BaselineContract):
    name = "act"


class TestRnn(BaselineContract):
    name = "rnn"
