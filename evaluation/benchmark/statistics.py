"""Paired differences and their bootstrap intervals. Pure functions of arrays.

Shape suffixes: K = quantities that were measured on the same runs and cases (here twin and pre-trained), S = seeds,
C = cases, B = draws of the bootstrap.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A value and the bounds between which the bootstrap puts it with a probability of `LEVEL`; NaN if unknown."""

    value: float
    low: float
    high: float

    @property
    def is_above_zero(self) -> bool:
        """Whether the whole interval is."""
        return self.low > 0

    @property
    def is_below_zero(self) -> bool:
        """Whether the whole interval is."""
        return self.high < 0


UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))


def observed_means(folds_KSC: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean of each quantity over all seeds and cases of all folds, (K,); NaN if nothing was measured.

    A seed and case counts only if every quantity is known there, so that the means stay paired.
    """
    values = [_paired(fold) for fold in folds_KSC]
    count = sum(known.sum() for _, known in values)
    total = np.sum([filled.sum(axis=(1, 2)) for filled, _ in values], axis=0)
    return total / count if count else np.full(len(folds_KSC[0]), np.nan)


def bootstrap_means(folds_KSC: Sequence[np.ndarray], *, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Return the means of each quantity over resampled folds, seeds and cases, (K, B).

    Folds are drawn with replacement; within each drawn one, seeds are, and cases, independently: every seed was
    validated on the same cases, so the two are crossed, and a drawn seed and a drawn case give the value measured for
    both (Owen 2007, "The pigeonhole bootstrap"). Drawing seed and case together for each value would take values that
    share a seed or a case for independent ones, and keeping the folds would leave out the luck of runs where each fold
    has one seed: both make the interval too narrow. All quantities see the same draws.

    Args:
        folds_KSC: Measurements of each fold; NaN where one is missing.
        draws: Number of draws.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    total_KB = np.zeros((len(folds_KSC[0]), draws))
    count_B = np.zeros(draws)
    folds = [_paired(fold) for fold in folds_KSC]
    for drawn_B in rng.integers(len(folds), size=(len(folds), draws)):
        for number, (filled_KSC, known_SC) in enumerate(folds):
            here = np.flatnonzero(drawn_B == number)
            times_BS, times_BC = (
                rng.multinomial(n, np.full(n, 1 / n), size=len(here)).astype(float) for n in known_SC.shape
            )
            total_KB[:, here] += ((times_BS @ filled_KSC) * times_BC).sum(axis=2)
            count_B[here] += ((times_BS @ known_SC) * times_BC).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(count_B > 0, total_KB / np.where(count_B > 0, count_B, 1), np.nan)


def interval(
    folds_KSC: Sequence[np.ndarray], statistic: Callable[..., np.ndarray], *, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Return a statistic of the means and its percentile interval.

    Args:
        folds_KSC: Measurements of each fold.
        statistic: Takes the K means as arguments, numbers or arrays.
        draws: Number of draws.
        seed: Of the draws.
    """
    if not folds_KSC:
        return UNKNOWN
    value = float(statistic(*observed_means(folds_KSC)))
    drawn = np.asarray(statistic(*bootstrap_means(folds_KSC, draws=draws, seed=seed)))
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or not len(drawn):
        return UNKNOWN
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def difference(twin: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return how much `other` is above its twin."""
    return other - twin


def error_reduction(twin: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return by which share `other` reduces the twin's error, 1 − Dice; NaN where the twin makes none."""
    error = np.asarray(1 - twin, dtype=float)
    return np.where(error > 0, 1 - (1 - other) / np.where(error > 0, error, 1), np.nan)


def _paired(fold_KSC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values, zero where any quantity is unknown, and where all are known as 1.0 or 0.0, (S, C)."""
    known_SC = np.isfinite(fold_KSC).all(axis=0)
    return np.where(known_SC, fold_KSC, 0.0), known_SC.astype(float)
