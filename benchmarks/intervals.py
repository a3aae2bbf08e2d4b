"""Measures how often the intervals of `voco_benchmark` hold the truth, and how often they miss zero by chance alone.

    python benchmarks/intervals.py [--experiments 400] [--draws 1000] [--quick]

Experiments without any effect are simulated: the difference between a run and its twin is the luck of the run (the same
on all its cases) plus the case (the same in all runs that are validated on it) plus both together, each normal. For
designs of folds × seeds × cases a fold, and for each of the three as the largest, it prints the share of experiments
whose interval of 95 % holds the true difference, 0. As the report says "helps" where the interval is above 0, half of
the rest are gains that are none. The standard error of a share of 0.9 over 400 experiments is 0.015.
"""

import argparse

import numpy as np
from measure import print_table

from nnunetv2_voco.evaluation.benchmark.statistics import interval

DESIGNS = ((1, 3, 12), (1, 6, 12), (5, 1, 8), (5, 1, 40), (5, 2, 8), (5, 3, 8))
"""Folds, seeds of each fold, validation cases of each fold."""

SPREADS = {
    "runs differ most": (0.10, 0.05, 0.05),
    "cases differ most": (0.05, 0.10, 0.05),
    "neither": (0.03, 0.05, 0.10),
}
"""Standard deviations in Dice: of a run, of a case, of a run on a case."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=400)
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap, in each experiment")
    parser.add_argument("--quick", action="store_true", help="20 experiments, too few to tell")
    args = parser.parse_args()
    experiments = 20 if args.quick else args.experiments
    rng = np.random.default_rng(0)
    rows = []
    for design in DESIGNS:
        shares = [held(design, spread, experiments, args.draws, rng) for spread in SPREADS.values()]
        rows.append([*map(str, design), *(f"{share:.2f}" for share in shares)])
    print_table(["folds", "seeds", "cases a fold", *SPREADS], rows)


def held(
    design: tuple[int, int, int],
    spread: tuple[float, float, float],
    experiments: int,
    draws: int,
    rng: np.random.Generator,
) -> float:
    """Share of experiments whose interval holds 0, the true difference."""
    folds, seeds, cases = design
    of_run, of_case, of_both = spread
    count = 0
    for _ in range(experiments):
        differences = (
            rng.normal(0, of_run, (folds, 1, seeds, 1))
            + rng.normal(0, of_case, (folds, 1, 1, cases))
            + rng.normal(0, of_both, (folds, 1, seeds, cases))
        )
        found = interval(list(differences), lambda mean: mean, draws=draws)
        count += found.low <= 0 <= found.high
    return count / experiments


if __name__ == "__main__":
    main()
