"""Films chosen at an episode's end, in environments that can go back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.controller import Decision
from deploy.episode import StepRecord
from deploy.video import EpisodeFilms, Film
from sim.arm.environment import ArmEnvironment
from sim.tasks.swap import Swap

NUM_STEPS = 2


def arm() -> ArmEnvironment:
    return ArmEnvironment(Swap(duration_s=NUM_STEPS / 10), pixels=32, render_pixels=64)


def play(
    environment: ArmEnvironment, seed: int, *, is_success: bool = False
) -> Iterable[StepRecord]:
    """An episode that moves the hand by 2 cm a step and ends as told."""
    observation = environment.reset(seed)
    action = environment.physics.hand.to_vector().astype(np.float32)
    for step in range(NUM_STEPS):
        action[2] -= 0.02
        result = environment.step(action)
        is_last = step + 1 == NUM_STEPS
        yield StepRecord(
            step=step,
            observation=observation,
            plan=None,
            source_levels={"front": 0.5},
            decision=Decision(
                step=step, action=action.copy(), case="newest", slot=None, interventions=()
            ),
            result=replace(result, success=is_last and is_success),
        )
        observation = result.observation


def filmed(num_films: int, successes: set[int], seeds: range, folder: Path) -> list[str]:
    environment = arm()
    films = EpisodeFilms([environment], seeds=seeds, num_films=num_films)
    for seed in seeds:
        for record in play(environment, seed, is_success=seed in successes):
            films.add(seed, record)
    return [path.stem.removeprefix("rollout_") for path in films.write(folder)]


@pytest.mark.parametrize(
    ("num_films", "successes", "chosen"),
    [
        (2, {3, 4}, ["1", "3"]),  # the first failure, the first success
        (3, {3, 4}, ["1", "3", "4"]),
        (1, {3}, ["3"]),
        (2, {1, 2, 3, 4}, ["1"]),  # no failure to be filmed
        (2, set(), ["1"]),
        (0, {3}, []),
    ],
)
def test_half_of_the_films_are_failures(
    num_films: int, successes: set[int], chosen: list[str], tmp_path: Path
) -> None:
    assert filmed(num_films, successes, range(1, 5), tmp_path) == chosen
    assert len(list(tmp_path.glob("levels_*.png"))) == len(chosen)


def test_a_taped_film_is_the_one_that_would_have_been_made_live(tmp_path: Path) -> None:
    environment = arm()
    films = EpisodeFilms([environment], seeds=[5], num_films=2)
    live = Film(environment, seed=5)
    for record in play(environment, 5):
        live.add(record)
        films.add(5, record)
    (path,) = films.write(tmp_path)
    assert path.read_bytes() == live.to_bytes()


def test_the_environment_stands_at_the_episodes_end_afterwards() -> None:
    environment, untouched = arm(), arm()
    films = EpisodeFilms([environment], seeds=[5], num_films=2)
    for record, _ in zip(play(environment, 5), play(untouched, 5), strict=True):
        films.add(5, record)
    np.testing.assert_array_equal(
        environment.physics.save().integration, untouched.physics.save().integration
    )
    assert environment.facts() == untouched.facts()


def test_no_more_than_so_many_episodes_are_taped_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.video.MAX_TAPES", 3)
    environment, seeds = arm(), range(5)
    records = list(play(environment, 0))
    films = EpisodeFilms([environment], seeds=seeds, num_films=2 * len(seeds))
    for record in records:
        for seed in seeds:
            films.add(seed, record)
    assert len(films.write(tmp_path)) == 3
