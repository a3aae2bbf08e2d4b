from dataclasses import replace

import numpy as np
import pytest

from nnunetv2_voco.pretrain.validation import Validation
from nnunetv2_voco.pretrain.verdict import gain_is_significant, has_learned, verdict

GOOD = Validation(
    intra=0.45,
    chance_zero=0.71,
    chance_constant=0.58,
    accuracy=0.6,
    accuracy_augmented=0.55,
    accuracy_across=0.5,
    blind=0.11,
    positives=0.7,
    negatives=0.2,
    spread=0.8,
    crops=192,
)
UNTRAINED = replace(GOOD, intra=0.72, accuracy=0.25)


def say(now: Validation, *, significant: bool = True, held_out: bool = True) -> str:
    return verdict(now, UNTRAINED, significant=significant, held_out=held_out)


def test_verdict_of_a_run_that_learned_gives_accuracy_and_loss_beside_chance():
    text = say(GOOD)
    assert text.startswith("The encoder has learned where things are in the body")
    for number in ("60%", "25%", "11%", "0.450", "0.580", "192"):
        assert number in text
    assert "held-out" in text


@pytest.mark.parametrize(
    ("now", "significant"),
    [
        (replace(GOOD, intra=0.6), True),
        (replace(GOOD, accuracy=0.27), True),
    ],
)
def test_verdict_with_one_of_the_two_signs_is_in_part(now, significant):
    assert not has_learned(now, UNTRAINED, significant=significant)
    assert "has only in part learned" in say(now, significant=significant)


@pytest.mark.parametrize(
    ("now", "significant"),
    [(replace(GOOD, accuracy=0.25, intra=0.6), False), (replace(GOOD, accuracy=0.2), True), (GOOD, False)],
)
def test_verdict_without_a_clear_gain_is_that_it_has_not_learned_and_what_to_do(now, significant):
    text = say(now, significant=significant)
    assert "has not learned" in text
    assert "--lr" in text or "more steps" in text


def test_verdict_names_a_collapse():
    assert "collapsed" in say(replace(GOOD, accuracy=0.11, intra=0.6, spread=0.01))


def test_verdict_says_when_nothing_was_held_out():
    assert "training volumes" in say(GOOD, held_out=False)


def test_plain_numbers_of_a_validation_give_it_back():
    assert Validation(**GOOD.as_dict()) == GOOD


def rights(gained: int, lost: int, both: int = 50) -> tuple[np.ndarray, np.ndarray]:
    now = np.array([True] * gained + [False] * lost + [True] * both)
    before = np.array([False] * gained + [True] * lost + [True] * both)
    return now, before


@pytest.mark.parametrize(
    ("gained", "lost", "expected"), [(0, 0, False), (20, 0, True), (60, 20, True), (30, 20, False), (0, 40, False)]
)
def test_gain_is_significant_by_the_crops_that_changed(gained, lost, expected):
    assert gain_is_significant(*rights(gained, lost)) == expected


def test_gain_by_chance_is_almost_never_significant(rng):
    hits = [gain_is_significant(rng.random(192) < 0.3, rng.random(192) < 0.3) for _ in range(2000)]
    assert np.mean(hits) < 0.005
