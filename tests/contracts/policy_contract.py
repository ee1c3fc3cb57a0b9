"""What every Policy must do. Inherit `PolicyContract` and give `make_policy`:

class TestMyPolicy(PolicyContract):
    def make_policy(self) -> Policy:
        return load_my_policy()
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from policy.interface import Plan, Policy, Request, Session
from teleop_data.schema import Schema

NUM_STEPS = 14


class PolicyContract:
    """The suite. `delay` is passed with every request; override it to try another."""

    delay = 0

    def make_policy(self) -> Policy:
        """The policy under test; asked for once a test."""
        raise NotImplementedError("give the policy under test")

    @pytest.fixture
    def policy(self) -> Policy:
        return self.make_policy()

    def drive(self, session: Session, schema: Schema, **changes) -> Iterator[Plan]:
        """An episode in which every plan's first usable action is executed."""
        executed = None
        for step in range(NUM_STEPS):
            request = Request(
                step=step,
                observation=some_observation(schema, step),
                executed=executed,
                delay=self.delay,
            )
            plan = session.step(replace(request, **changes))
            executed = plan.actions[:1].copy()
            yield plan

    def test_plans_have_the_shape_that_the_interface_says(self, policy: Policy) -> None:
        horizons = set()
        for step, plan in enumerate(self.drive(policy.start_session(0), policy.schema)):
            assert plan.start_step == step
            assert plan.actions.shape == (len(plan.levels), *policy.schema.action.shape)
            assert plan.actions.dtype == plan.levels.dtype == np.float32
            assert np.isfinite(plan.actions).all()
            assert plan.network_calls >= 0
            horizons.add(len(plan.levels))
        assert len(horizons) == 1

    def test_levels_never_fall_along_a_plan(self, policy: Policy) -> None:
        for plan in self.drive(policy.start_session(0), policy.schema):
            assert ((plan.levels >= 0) & (plan.levels <= 1)).all()
            assert (np.diff(plan.levels) >= 0).all()

    def test_the_first_usable_slot_is_decided(self, policy: Policy) -> None:
        for plan in self.drive(policy.start_session(0), policy.schema):
            assert (plan.levels[: self.delay + 1] == 0).all()

    def test_committed_slots_stay_as_they_were(self, policy: Policy) -> None:
        plans = list(self.drive(policy.start_session(0), policy.schema))
        for old, new in zip(plans, plans[1:], strict=False):
            committed = old.actions[1 : self.delay + 1]
            np.testing.assert_array_equal(new.actions[: self.delay], committed)

    def test_the_seed_fixes_everything(self, policy: Policy) -> None:
        first = list(self.drive(policy.start_session(5), policy.schema))
        list(self.drive(policy.start_session(6), policy.schema))
        assert_same_plans(first, self.drive(policy.start_session(5), policy.schema))

    def test_sessions_do_not_disturb_each_other(self, policy: Policy) -> None:
        alone = [list(self.drive(policy.start_session(s), policy.schema)) for s in (1, 2)]
        drives = [self.drive(policy.start_session(s), policy.schema) for s in (1, 2)]
        together = list(zip(*drives, strict=True))
        for plans, expected in zip(zip(*together, strict=True), alone, strict=True):
            assert_same_plans(expected, plans)

    def test_plans_own_their_memory(self, policy: Policy) -> None:
        expected = list(self.drive(policy.start_session(0), policy.schema))
        session, executed = policy.start_session(0), None
        for step, wanted in enumerate(expected):
            observation = some_observation(policy.schema, step)
            request = Request(
                step=step, observation=observation, executed=executed, delay=self.delay
            )
            plan = session.step(request)
            np.testing.assert_array_equal(plan.actions, wanted.actions)
            executed = plan.actions[:1].copy()
            plan.actions[:] = 1e6
            plan.levels[:] = 1
            for value in observation.values():
                value[:] = 0

    # torch warns of any read-only array, though nobody writes to it
    @pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning")
    def test_read_only_observations_are_taken(self, policy: Policy) -> None:
        observation = some_observation(policy.schema, 0)
        for value in observation.values():
            value.flags.writeable = False
        policy.start_session(0).step(Request(step=0, observation=observation))

    def test_missing_sources_are_taken(self, policy: Policy) -> None:
        for plan in self.drive(policy.start_session(0), policy.schema, observation={}):
            assert np.isfinite(plan.actions).all()

    def test_requests_may_skip_steps(self, policy: Policy) -> None:
        session = policy.start_session(0)
        for step, num_executed in [(0, 0), (1, 1), (4, 3), (5, 0), (60, 55), (61, 1)]:
            executed = np.zeros((num_executed, *policy.schema.action.shape), np.float32)
            observation = some_observation(policy.schema, step)
            plan = session.step(Request(step=step, observation=observation, executed=executed))
            assert plan.start_step == step
            assert plan.levels[0] == 0

    @pytest.mark.parametrize(
        ("fault", "error", "message"),
        [
            ("unknown source", KeyError, "no_such_source"),
            ("level of an unknown source", KeyError, "no_such_source"),
            ("level above 1", ValueError, "1.5"),
            ("level not a number", ValueError, "nan"),
            ("shape", ValueError, "expected"),
            ("dtype", ValueError, "expected"),
            ("not finite", ValueError, "finite"),
            ("executed shape", ValueError, "executed"),
            ("executed not finite", ValueError, "executed"),
            ("step again", ValueError, "rise"),
        ],
    )
    def test_a_request_off_schema_is_refused_and_leaves_no_trace(
        self, policy: Policy, fault: str, error: type[Exception], message: str
    ) -> None:
        session, untouched = policy.start_session(0), policy.start_session(0)
        for s in (session, untouched):
            s.step(Request(step=0, observation=some_observation(policy.schema, 0)))
        good = Request(
            step=1,
            observation=some_observation(policy.schema, 1),
            executed=np.zeros((1, *policy.schema.action.shape), np.float32),
        )
        with pytest.raises(error, match=message):
            session.step(spoil(good, fault, schema=policy.schema))
        assert_same_plans([untouched.step(good)], [session.step(good)])


def some_observation(schema: Schema, seed: int) -> dict[str, np.ndarray]:
    """Every observed feature, a function of the seed."""
    rng = np.random.default_rng(seed)
    return {
        f.name: rng.integers(0, 256, f.shape).astype(f.dtype)
        if f.role == "camera"
        else rng.uniform(-1, 1, f.shape).astype(f.dtype)
        for f in schema.observed
    }


def assert_same_plans(expected, plans) -> None:
    """Equal to the bit."""
    for a, b in zip(expected, plans, strict=True):
        assert (a.start_step, a.network_calls) == (b.start_step, b.network_calls)
        np.testing.assert_array_equal(a.actions, b.actions)
        np.testing.assert_array_equal(a.levels, b.levels)


def spoil(request: Request, fault: str, *, schema: Schema) -> Request:
    """The request with one thing wrong."""
    state = schema.with_role("state")[0]
    value, executed = request.observation[state.name], request.executed
    assert executed is not None

    def observed(changed: np.ndarray) -> Request:
        return replace(request, observation={**request.observation, state.name: changed})

    match fault:
        case "unknown source":
            extra = {**request.observation, "no_such_source": value}
            return replace(request, observation=extra)
        case "level of an unknown source":
            return replace(request, levels={"no_such_source": 0.5})
        case "level above 1":
            return replace(request, levels={state.name: 1.5})
        case "level not a number":
            return replace(request, levels={state.name: float("nan")})
        case "shape":
            return observed(value[None])
        case "dtype":
            return observed(value.astype(np.int64))
        case "not finite":
            return observed(np.full_like(value, np.nan))
        case "executed shape":
            return replace(request, executed=np.concatenate([executed, executed], axis=1))
        case "executed not finite":
            return replace(request, executed=np.full_like(executed, np.inf))
        case "step again":
            return replace(request, step=0)
    raise AssertionError(f"no fault {fault!r}")
