"""How sure a model is of its own segmentation of one case."""

from typing import Any

import numpy as np


def confidence(
    probabilities: np.ndarray, segmentation: np.ndarray, labels: dict[str, int], *, exclusive: bool = True
) -> dict[str, Any]:
    """Average the model's probability of what it chose.

    Args:
        probabilities: Shape (classes, z, y, x).
        segmentation: Labels, shape (z, y, x).
        labels: Name of each foreground label → its value.
        exclusive: Whether the classes exclude each other; otherwise they are regions that may overlap.

    Returns:
        `confidence`, the mean over all voxels labelled as foreground, None where there are none;
        `confidence_background`, the same over the rest; and for each label `voxels NAME` and `confidence NAME`.
        Confidence lies between 1 / classes (0.5 for regions) and 1.
    """
    chosen = probabilities.max(0) if exclusive else np.maximum(probabilities, 1 - probabilities).mean(0)
    foreground = segmentation > 0
    result: dict[str, Any] = {
        "confidence": _mean(chosen, foreground),
        "confidence_background": _mean(chosen, ~foreground),
    }
    for name, value in labels.items():
        mask = segmentation == value
        result[f"voxels {name}"] = int(mask.sum())
        result[f"confidence {name}"] = _mean(chosen, mask)
    return result


def _mean(values: np.ndarray, mask: np.ndarray) -> float | None:
    return round(float(values[mask].mean(dtype=np.float64)), 4) if mask.any() else None
