"""Reaction time: found in hand-made motions whose turn is known."""

from __future__ import annotations

import numpy as np
import pytest

from sim.arm.reaction_time import Jump, reaction_time_s

JUMP = Jump(step=4, from_=(0.5, 0.0), to=(0.5, 0.12))


def hand_that_turns(*, step: int) -> np.ndarray:
    """(31, 2) m: 4 cm a step towards the old place, from `step` on towards the new one."""
    places = [np.array([0.1, 0.0])]
    for number in range(1, 31):
        goal = np.array(JUMP.to if number >= step else JUMP.from_)
        way = goal - places[-1]
        places.append(places[-1] + way * min(1.0, 0.04 / max(float(np.linalg.norm(way)), 1e-9)))
    return np.array(places)


@pytest.mark.parametrize("late", [0, 1, 3, 6, 12])
def test_reaction_time_is_until_the_turn(late: int):
    """Still on its way, or having arrived at the old place already."""
    commanded = hand_that_turns(step=JUMP.step + late)
    assert reaction_time_s(commanded, jump=JUMP, rate_hz=20) == pytest.approx(late / 20)


def test_a_slight_sway_is_no_reaction():
    sway = 0.004 * np.sin(np.arange(31))[:, None] * [0.0, 1.0]
    commanded = hand_that_turns(step=JUMP.step + 5) + sway
    assert reaction_time_s(commanded, jump=JUMP, rate_hz=10) == pytest.approx(0.5)


def test_who_goes_on_to_the_old_place_has_no_reaction_time():
    assert reaction_time_s(hand_that_turns(step=100), jump=JUMP, rate_hz=10) is None
    away = hand_that_turns(step=JUMP.step + 2) * [1.0, -1.0]
    assert reaction_time_s(away, jump=JUMP, rate_hz=10) is None


def test_a_jump_along_the_way_tells_nothing():
    along = Jump(step=JUMP.step, from_=JUMP.from_, to=(0.62, 0.01))
    commanded = hand_that_turns(step=JUMP.step + 1)
    assert reaction_time_s(commanded, jump=along, rate_hz=10) is None
