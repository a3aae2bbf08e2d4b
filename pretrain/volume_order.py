"""Which volume a sample comes from: a function of seed and sample number, with or without weights."""

from collections.abc import Sequence

import numpy as np

LONGEST_PASS = 2**20
"""Samples after which a weighted pass begins anew, unless there are more volumes; bounds memory and time."""


class VolumeOrder:
    """Index of the volume of sample number i, for i from 0 without end.

    Without weights every volume comes once in each pass, in a new order every time. With weights a pass is so long
    that the volumes of least weight come once in it, and a volume of w times their weight comes w times: exactly, if
    w is whole, else the whole number below or above, in the right proportion. Weights so far apart that a pass would
    exceed `LONGEST_PASS` leave out some of the rarest volumes in each pass, others every time.

    A sample's volume takes a division and a look-up; the order of a pass is drawn once, when its first sample is.

    Args:
        volumes: Their number.
        seed: The run's seed.
        weights: How often each volume is drawn, relative to the others; alike, when None.
    """

    def __init__(self, volumes: int, seed: int, weights: Sequence[float] | None = None) -> None:
        self.volumes, self.seed = volumes, seed
        self.pass_length = volumes
        self._drawn: np.ndarray | None = None  # volumes of positive weight
        if weights is not None:
            self._weights = np.asarray(weights, float)
            self._drawn = np.flatnonzero(self._weights)
            positive = self._weights[self._drawn]
            longest = max(LONGEST_PASS, len(positive))
            self.pass_length = min(round(positive.sum() / positive.min()), longest)
        self._orders: dict[int, np.ndarray] = {}

    def __getitem__(self, number: int) -> int:
        number_of_pass, place = divmod(number, self.pass_length)
        return int(self._order(number_of_pass)[place])

    def counts(self, samples: int) -> np.ndarray:
        """How often each volume comes among the first `samples` samples, (volumes,)."""
        passes, rest = divmod(samples, self.pass_length)
        total = np.zeros(self.volumes, np.int64)
        if self._drawn is None:
            total += passes
        else:
            for number_of_pass in range(passes):
                total += np.bincount(self._draw(number_of_pass), minlength=self.volumes)
        return total + np.bincount(self._draw(passes)[:rest], minlength=self.volumes)

    def _order(self, number_of_pass: int) -> np.ndarray:
        if number_of_pass not in self._orders:
            while len(self._orders) > 1:  # a batch may reach into the next pass
                del self._orders[next(iter(self._orders))]
            self._orders[number_of_pass] = self._draw(number_of_pass)
        return self._orders[number_of_pass]

    def _draw(self, number_of_pass: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, number_of_pass, 1))
        if self._drawn is None:
            return rng.permutation(self.volumes)
        # systematic sampling: evenly spaced points on the volumes, laid end to end, each as long as its share
        shuffled = rng.permutation(self._drawn)
        ends = np.cumsum(self._weights[shuffled])
        points = (rng.random() + np.arange(self.pass_length)) * (ends[-1] / self.pass_length)
        chosen = np.searchsorted(ends, points, side="right").clip(max=len(shuffled) - 1)
        return rng.permutation(shuffled[chosen])
