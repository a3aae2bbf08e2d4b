"""How fast a training converges: nnU-Net's pseudo Dice by epoch, and when it reaches the twin's final value."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SHARE_SMOOTHED = 0.1
"""Share of the epochs over which pseudo Dice, computed from few patches, is averaged."""

LOGGED = {
    "pseudo_dice": "mean_fg_dice",
    "train_loss": "train_losses",
    "val_loss": "val_losses",
    "lr": "lrs",
    "started": "epoch_start_timestamps",
    "ended": "epoch_end_timestamps",
}
"""Fields of a `Curve` and what nnU-Net's logger calls them; times become seconds."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One value per epoch."""

    pseudo_dice: list[float]
    train_loss: list[float]
    val_loss: list[float]
    lr: list[float]
    seconds: list[float]


def curve_of_logger(logger: Any) -> dict[str, list[float]]:
    """Take the content of a `Curve` from nnU-Net's logger, as plain numbers."""
    values = {name: [float(value) for value in logger.get_value(key, None)] for name, key in LOGGED.items()}
    started, ended = values.pop("started"), values.pop("ended")
    return values | {"seconds": [end - start for start, end in zip(started, ended, strict=False)]}


def smoothed(values: Sequence[float]) -> np.ndarray:
    """Return for each epoch the mean of the last epochs, as many as `SHARE_SMOOTHED` of all; fewer at the start."""
    window = max(1, round(SHARE_SMOOTHED * len(values)))
    filled = np.nan_to_num(np.asarray(values, dtype=float))  # NaN: no voxel of the class was seen or predicted
    return np.array([filled[max(0, end - window) : end].mean() for end in range(1, len(filled) + 1)])


def epochs_to_reach(values: Sequence[float], target: float) -> int | None:
    """Return after how many epochs the smoothed values first reach `target`; None if never.

    The epochs before a whole window has passed do not count: their mean is of fewer values, and noisier.
    """
    means = smoothed(values)
    window = max(1, round(SHARE_SMOOTHED * len(means)))
    reached = np.flatnonzero(means[window - 1 :] >= target)
    return int(reached[0]) + window if len(reached) else None


def final_value(values: Sequence[float]) -> float:
    """Return the smoothed value after the last epoch."""
    return float(smoothed(values)[-1])
