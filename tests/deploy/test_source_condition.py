"""Source conditions: each fault, alone, becomes level 1 at the step at which it can be known."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.source_condition import ConditionLimits, Sample, SourceCondition, contrast
from deploy.wire import Flag
from tests.deploy.tiny_policy import planar_schema

SCHEMA = planar_schema(rate_hz=10.0)


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)


def position(step: float) -> Sample:
    return Sample(value=np.array([0.1 * step, 0.0], np.float32))


def condition(**limits) -> SourceCondition:
    return SourceCondition(SCHEMA, limits=ConditionLimits(**limits))


def test_a_healthy_stream_is_believed():
    sources = condition()
    for step in range(20):
        assessment = sources.assess(
            {
                "front": Sample(value=picture(step), captured_s=step / 10),
                "position": position(step),
            },
            now_s=step / 10,
        )
        assert assessment.levels == {"front": 0.0, "position": 0.0}
        assert assessment.reasons == {}


def test_what_never_spoke_is_missing():
    assessment = condition().assess({"position": position(0)}, now_s=0.0)
    assert assessment.levels == {"front": 1.0, "position": 0.0}
    assert assessment.reasons == {"front": "missing"}


@pytest.mark.parametrize("source", ["front", "position"])
def test_what_is_older_than_the_limit_is_stale(source):
    samples = {"front": Sample(value=picture(0)), "position": position(0)}
    for age_s, expected in ((0.29, {}), (0.31, {source: "stale"})):  # 3 steps at 10 Hz
        aged = {**samples, source: Sample(value=samples[source].value, captured_s=5.0)}
        assert condition().assess(aged, now_s=5.0 + age_s).reasons == expected


def reasons_by_step(images, positions, sequences) -> list[str]:
    sources = condition(num_frozen=3)
    return [
        sources.assess(
            {
                "front": Sample(value=picture(images[t]), sequence=sequences[t]),
                "position": position(positions[t]),
            },
            now_s=t / 10,
        ).reasons.get("front", "")
        for t in range(len(images))
    ]


def test_a_picture_that_stands_still_while_the_robot_moves_is_frozen_until_it_changes():
    found = reasons_by_step([0, 1, 1, 1, 1, 1, 2], range(7), [None] * 7)
    assert found == ["", "", "", "", "frozen", "frozen", ""]


def test_new_frame_numbers_do_not_unfreeze_a_picture():
    assert reasons_by_step([1] * 5, range(5), range(5)) == ["", "", "", "frozen", "frozen"]


def test_a_still_picture_of_a_still_robot_is_believed():
    assert reasons_by_step([1] * 9, [0] * 9, range(9)) == [""] * 9


def test_the_same_frame_again_is_frozen_even_if_the_robot_rests():
    assert reasons_by_step([1] * 5, [0] * 5, [4] * 5) == ["", "", "", "frozen", "frozen"]


def test_without_a_state_every_still_picture_counts():
    sources = SourceCondition(SCHEMA.select(["front"]), limits=ConditionLimits(num_frozen=2))
    found = [sources.assess({"front": Sample(value=picture(0))}, now_s=t).reasons for t in range(4)]
    assert found == [{}, {}, {"front": "frozen"}, {"front": "frozen"}]


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_picture_without_contrast_is_covered(grey):
    rng = np.random.default_rng(0)
    image = np.clip(grey + rng.normal(0, 2, (32, 32, 3)), 0, 255).astype(np.uint8)
    assessment = condition().assess(
        {"front": Sample(value=image), "position": position(0)}, now_s=0.0
    )
    assert assessment.reasons == {"front": "covered"}


def test_one_small_thing_on_a_plain_table_is_contrast_enough():
    image = np.full((32, 32, 3), 255, np.uint8)
    image[4:8, 4:8] = (200, 30, 30)  # 16 of 1024 pixels
    assert contrast(image) == pytest.approx(225 * np.sqrt(16 / 1024 * (1 - 16 / 1024)), rel=1e-3)
    sample = {"front": Sample(value=image), "position": position(0)}
    assert condition().assess(sample, now_s=0.0).reasons == {}


def test_flag_none_believes_whatever_exists():
    sources = SourceCondition(SCHEMA, flag="none")
    black = Sample(value=np.zeros((32, 32, 3), np.uint8), captured_s=-100.0)
    assessment = sources.assess({"front": black, "position": position(0)}, now_s=0.0)
    assert assessment.levels == {"front": 0.0, "position": 0.0}
    assert assessment.conditions["front"] == "stale"  # known, only not acted upon
    missing = sources.assess({"position": position(1)}, now_s=0.1)
    assert missing.levels == {"front": 1.0, "position": 0.0}


def test_impossible_limits_are_refused():
    with pytest.raises(ValueError, match="must be positive"):
        ConditionLimits(max_age_steps=0)


class Reddish:
    """A NoveltyDetector to which red is strange, and in whose training pictures came again once."""

    def __init__(self) -> None:
        self.num_asked = 0

    def is_strange(self, camera: str, picture: np.ndarray, /, *, tolerance: float) -> bool:
        assert camera == "front"
        self.num_asked += 1
        return bool(picture[0, 0, 0] == 255 and tolerance < 2)

    def longest_still(self, camera: str, /) -> int:
        return 1


def red(seed: int) -> np.ndarray:
    image = picture(seed)
    image[0, 0, 0] = 255
    return image


def seen_by(novelty: Reddish | None, images, *, flag: Flag = "auto", sequences=None, **limits):
    sources = SourceCondition(SCHEMA, limits=ConditionLimits(**limits), flag=flag, novelty=novelty)
    found = []
    for step, image in enumerate(images):
        sequence = None if sequences is None else sequences[step]
        sample = Sample(value=image, sequence=sequence)
        told = sources.assess({"front": sample, "position": position(step)}, now_s=step / 10)
        found.append(told.reasons.get("front", ""))
    return found


def test_a_picture_unlike_the_training_is_strange_in_its_first_step():
    images = [picture(0), red(1), red(2), picture(3)]
    assert seen_by(Reddish(), images) == ["", "strange", "strange", ""]
    assert seen_by(Reddish(), images, tolerance=2.5) == [""] * 4
    assert seen_by(None, images) == [""] * 4


def test_a_strange_picture_counts_as_missing():
    sources = SourceCondition(SCHEMA, novelty=Reddish())
    told = sources.assess({"front": Sample(value=red(0)), "position": position(0)}, now_s=0.0)
    assert told.levels == {"front": 1.0, "position": 0.0}


def test_what_is_wrong_in_a_plainer_way_is_called_that():
    black = np.zeros((32, 32, 3), np.uint8)
    black[0, 0, 0] = 255
    assert seen_by(Reddish(), [black, red(1)], min_contrast=9.0) == ["covered", "strange"]


def test_pictures_that_stand_still_longer_than_in_training_are_frozen():
    images = [picture(0)] * 4
    assert seen_by(Reddish(), images) == ["", "", "frozen", "frozen"]
    assert seen_by(None, images) == ["", "", "", "frozen"]
    assert seen_by(Reddish(), images, num_frozen=1) == ["", "frozen", "frozen", "frozen"]


def test_a_slow_camera_with_frame_numbers_has_the_usual_limit():
    assert seen_by(Reddish(), [picture(0)] * 4, sequences=[7] * 4) == ["", "", "", "frozen"]


def test_novelty_is_not_asked_where_everything_is_believed():
    novelty = Reddish()
    assert seen_by(novelty, [picture(0), red(1)], flag="none") == ["", ""]
    assert novelty.num_asked == 0
