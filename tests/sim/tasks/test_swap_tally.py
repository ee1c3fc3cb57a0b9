"""Swaps counted by what happens: the tally alone, told a story."""

from __future__ import annotations

import pytest

from sim.tasks.swap_tally import NO_PLATE, Layout, Tally

REST = 3
START, PARKED, CROSSED, SWAPPED = (0, 1), (2, 1), (2, 0), (1, 0)
RIGHT = [PARKED, CROSSED, SWAPPED]


def moved(tally: Tally, *to: Layout) -> Tally:
    """A move to each of the layouts, the hand away; then too short a stay at home."""
    for layout in to:
        tally = stay(tally, layout, is_home=False, moves=1)
        tally = stay(tally, layout, steps=REST - 1)
    return tally


def stay(
    tally: Tally,
    layout: Layout,
    *,
    steps: int = 1,
    is_home: bool = True,
    moves: int = 0,
    is_upright: bool = True,
    rest_steps: int | None = REST,
) -> Tally:
    for _ in range(steps):
        tally = tally.after_step(
            moves=moves,
            layout=layout,
            is_home=is_home,
            is_upright=is_upright,
            rest_steps=rest_steps,
        )
    return tally


def test_three_moves_and_a_rest_are_a_swap_and_the_next_goes_on_from_there():
    tally = moved(Tally(START), *RIGHT)
    assert tally.swaps == ()  # not rested yet
    tally = stay(tally, SWAPPED)
    assert tally.swaps == (True,)
    assert (tally.start, tally.num_moves) == (SWAPPED, 0)
    tally = stay(moved(tally, (1, 2), (0, 2), START), START, steps=50)
    assert tally.swaps == (True, True)


def test_a_pause_before_or_between_right_moves_ends_nothing():
    tally = stay(Tally(START), START, steps=100)
    for number, layout in enumerate(RIGHT[:2], start=1):
        tally = stay(moved(tally, layout), layout, steps=100)
        assert (tally.num_moves, tally.swaps) == (number, ())
    assert stay(moved(tally, SWAPPED), SWAPPED).swaps == (True,)


@pytest.mark.parametrize(
    "story",
    [
        [*RIGHT, CROSSED],  # a move too many
        [(2, 1), (0, 1)],  # there and back
        [PARKED, CROSSED, (1, 0), (2, 0), (1, 0)],  # swapped, by five
        [PARKED, (2, 0), (2, 1)],  # three moves to somewhere else
    ],
)
def test_what_is_wrong_fails_one_swap_at_its_rest_and_the_next_can_be_right(story: list[Layout]):
    tally = stay(moved(Tally(START), *story), story[-1])
    assert tally.swaps == (False,)
    first, second = story[-1]
    (free,) = {0, 1, 2} - {first, second}
    after = [(free, second), (free, first), (second, first)]
    assert stay(moved(tally, *after), after[-1]).swaps == (False, True)


@pytest.mark.parametrize("lost", [(1, NO_PLATE), (1, 1)])
def test_no_swap_is_over_while_a_fruit_has_no_plate_of_its_own(lost: Layout):
    tally = stay(moved(Tally(START), *RIGHT), lost, steps=100)
    assert tally.swaps == ()
    assert stay(tally, SWAPPED).swaps == (True,)  # put back in time


def test_a_fruit_on_its_side_is_wrong():
    tally = moved(Tally(START), *RIGHT)
    assert stay(tally, SWAPPED, is_upright=False).swaps == (False,)


def test_without_rests_a_swap_goes_on():
    tally = stay(moved(Tally(START), *RIGHT), SWAPPED, steps=100, rest_steps=None)
    assert tally.swaps == ()
    assert tally.is_right(layout=SWAPPED, is_upright=True)
    assert not moved(tally, CROSSED).is_right(layout=SWAPPED, is_upright=True)
