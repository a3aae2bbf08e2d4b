"""From counts to scores, their spread and an interval.

Shape suffixes: S = seeds, K = test cases, C = classes, 5 = fields of a `Tally`, D = bootstrap draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_voco.evaluation.probe_classify import Tally

DRAWS = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Scores:
    """Counts of one classifier on the features of one kind of encoder.

    Attributes:
        counts_SKC5: One `Tally` for each seed and test case.
    """

    counts_SKC5: np.ndarray

    @classmethod
    def of(cls, tallies: Sequence[Sequence[Tally]]) -> "Scores":
        """Collect tallies, one list of test cases per seed."""
        return cls(np.array([[np.stack(tally, axis=1) for tally in cases] for cases in tallies]))

    @property
    def recall_SC(self) -> np.ndarray:
        """Share of each class's voxels that were recognised, all classes taken as equally frequent; NaN if none."""
        return recall(self.counts_SKC5.sum(axis=1))

    @property
    def dice_SC(self) -> np.ndarray:
        """Dice of each class in the windows, estimated from the sampled voxels; NaN where the class is absent."""
        counts_SC5 = self.counts_SKC5.sum(axis=1)
        return ratio(2 * counts_SC5[..., 4], counts_SC5[..., 2] + counts_SC5[..., 3])

    @property
    def balanced_accuracy_S(self) -> np.ndarray:
        """Mean over the classes of `recall_SC`."""
        return np.nanmean(self.recall_SC, axis=1)

    @property
    def mean_dice_S(self) -> np.ndarray:
        """Mean over the classes but the background of `dice_SC`."""
        return np.nanmean(self.dice_SC[:, 1:], axis=1)


@dataclass(frozen=True)
class Difference:
    """A difference of balanced accuracies with its interval."""

    value: float
    low: float
    high: float


def paired_difference(ours: Scores, theirs: Scores, *, seed: int = 0) -> Difference:
    """Balanced accuracy of `ours` minus that of `theirs`, with an interval by bootstrap.

    Both were measured on the same voxels. Seeds and test cases are drawn anew, each with replacement.
    """
    rng = np.random.default_rng((seed, 6))
    seeds, cases = ours.counts_SKC5.shape[:2]
    weights_DS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), DRAWS)
    weights_DK = rng.multinomial(cases, np.full(cases, 1 / cases), DRAWS)
    drawn = [_balanced_accuracy(scores, weights_DS, weights_DK) for scores in (ours, theirs)]
    low, high = np.nanquantile(drawn[0] - drawn[1], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value = float(np.mean(ours.balanced_accuracy_S - theirs.balanced_accuracy_S))
    return Difference(value, float(low), float(high))


def _balanced_accuracy(scores: Scores, weights_DS: np.ndarray, weights_DK: np.ndarray) -> np.ndarray:
    """Balanced accuracy (D,) for each draw of seeds and cases; classes absent in a draw take no part."""
    per_seed_DSC5 = np.einsum("dk,skcm->dscm", weights_DK, scores.counts_SKC5)
    accuracy_DS = np.nanmean(recall(per_seed_DSC5), axis=2)
    return (accuracy_DS * weights_DS).sum(axis=1) / weights_DS.sum(axis=1)


def recall(counts_C5: np.ndarray) -> np.ndarray:
    """Return right over sampled of summed tallies (…, C, 5), NaN where nothing was sampled."""
    return ratio(counts_C5[..., 1], counts_C5[..., 0])


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Divide, giving NaN where the denominator is zero."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
