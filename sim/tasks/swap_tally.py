"""Swaps counted by what happens, whatever the clock says: for hands that cannot see a clock.

    hand      home, moves 1 2 3, home . . . |  moves 1 2, home, moves 3 4, home . . . |
    swaps                               right                                     wrong

A swap is over once the hand has rested at home for a while, after three moves or with fruits that
lie as none of the right moves would have left them. The next one starts from there, right or wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

NUM_PLATES, NUM_MOVES = 3, 3
NO_PLATE = -1

Layout = tuple[int, ...]  # plate of each fruit


@dataclass(frozen=True)
class Tally:
    """The swaps so far.

    Attributes:
        start: layout at the start of the present swap.
        num_moves: made in the present swap.
        num_steps_home: control steps that the hand has been at home, without a break.
        swaps: of each swap that is over, whether it was right.
    """

    start: Layout
    num_moves: int = 0
    num_steps_home: int = 0
    swaps: tuple[bool, ...] = ()

    def after_step(
        self,
        *,
        moves: int,
        layout: Layout,
        is_home: bool,
        is_upright: bool,
        rest_steps: int | None,
    ) -> Tally:
        """The tally a control step later.

        Args:
            moves: made in this step.
            layout: on which plates the fruits stand now, NO_PLATE for one that stands on none.
            is_home: whether the hand is at home.
            is_upright: whether every fruit is.
            rest_steps: control steps at home that make a rest; None if no rest ends a swap.
        """
        tally = replace(
            self,
            num_moves=self.num_moves + moves,
            num_steps_home=self.num_steps_home + 1 if is_home else 0,
        )
        is_rest = rest_steps is not None and tally.num_steps_home >= rest_steps
        if not is_rest or not is_layout(layout) or tally._is_on_its_way(layout):
            return tally
        is_right = tally.is_right(layout=layout, is_upright=is_upright)
        return replace(tally, start=layout, num_moves=0, swaps=(*tally.swaps, is_right))

    def is_right(self, *, layout: Layout, is_upright: bool) -> bool:
        """Whether the present swap is made, by exactly three moves."""
        return self.num_moves == NUM_MOVES and layout == self.start[::-1] and is_upright

    def _is_on_its_way(self, layout: Layout) -> bool:
        return self.num_moves < NUM_MOVES and layout in layouts(self.start)[self.num_moves]


def is_layout(plates: Layout) -> bool:
    """Whether each fruit is on a plate of its own, so that a swap can start from there."""
    return NO_PLATE not in plates and len(set(plates)) == len(plates)


def layouts(start: Layout) -> tuple[set[Layout], ...]:
    """Where apple and orange may lie after 0, 1, 2 and 3 moves that swap them, from `start`."""
    apple, orange = start
    (free,) = set(range(NUM_PLATES)) - {apple, orange}
    return (
        {(apple, orange)},
        {(free, orange), (apple, free)},
        {(free, apple), (orange, free)},
        {(orange, apple)},
    )
