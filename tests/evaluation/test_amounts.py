import random

import pytest

from nnunetv2_voco.evaluation.benchmark.amounts import count_cases, parse_amount, training_subset, validation_subset

CASES = [f"case_{number:03}" for number in range(160)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fold", [0, 3])
def test_subsets_are_nested(seed: int, fold: int) -> None:
    subsets = [set(training_subset(CASES, n, dataset="D", fold=fold, seed=seed)) for n in range(1, len(CASES) + 1)]
    assert [len(subset) for subset in subsets] == list(range(1, len(CASES) + 1))
    for smaller, larger in zip(subsets, subsets[1:], strict=False):
        assert smaller < larger
    assert subsets[-1] == set(CASES)


def test_subset_depends_on_seed_fold_and_data_set_but_not_on_the_order_of_cases() -> None:
    subset = training_subset(CASES, 8, dataset="D", fold=0, seed=0)
    mixed = CASES.copy()
    random.Random(1).shuffle(mixed)
    assert training_subset(mixed, 8, dataset="D", fold=0, seed=0) == subset
    for change in ({"seed": 1}, {"fold": 1}, {"dataset": "E"}):
        assert training_subset(CASES, 8, **({"dataset": "D", "fold": 0, "seed": 0} | change)) != subset


def test_case_that_joins_leaves_the_others_in_order() -> None:
    subset = training_subset(CASES, 20, dataset="D", fold=0, seed=0)
    more = training_subset([*CASES, "new"], 20, dataset="D", fold=0, seed=0)
    assert len(set(subset) - set(more)) <= 1


def test_every_case_is_drawn_equally_often() -> None:
    drawn = [case for seed in range(2000) for case in training_subset(CASES[:20], 5, dataset="D", fold=0, seed=seed)]
    counts = [drawn.count(case) for case in CASES[:20]]
    assert min(counts) > 500 - 5 * 19.4  # binomial: 2000 draws at 1/4 have a deviation of 19.4
    assert max(counts) < 500 + 5 * 19.4


@pytest.mark.parametrize(
    ("given", "amount", "cases"),
    [
        ("5%", "5%", 8), (0.05, "5%", 8), ("0.5", "50%", 80), ("12.5 %", "12.5%", 20), (1.0, "100%", 160), (1, "1", 1),
        ("10", "10", 10), ("all", "100%", 160), ("0.1%", "0.1%", 1),
    ],
)  # fmt: skip
def test_amounts_are_shares_or_numbers(given: object, amount: str, cases: int) -> None:
    assert parse_amount(given) == amount
    assert count_cases(amount, len(CASES)) == cases


@pytest.mark.parametrize("given", [0, -3, "0%", "101%", 1.5, "few", True, None, "", "nan"])
def test_other_amounts_are_refused(given: object) -> None:
    with pytest.raises(ValueError, match="expected a share such as 5% or 0.05, a number of cases such as 10, or all"):
        parse_amount(given)


def test_more_cases_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="161 labelled cases are asked for; the fold has 160"):
        count_cases("161", 160)
    with pytest.raises(ValueError, match="validation_cases: 3 are asked for; fold 1 of D has 2"):
        validation_subset(["a", "b"], 3, dataset="D", fold=1)


def test_validation_cases_are_all_or_a_fixed_choice() -> None:
    assert validation_subset(CASES[::-1], None, dataset="D", fold=0) == CASES
    assert len(set(validation_subset(CASES, 20, dataset="D", fold=0))) == 20
