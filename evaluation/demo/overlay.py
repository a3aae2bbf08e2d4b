"""Slices of a test case with labels in colour, as pixels. Arrays are (z, y, x)."""

import colorsys
from pathlib import Path

import numpy as np

WINDOW_HU = (-175.0, 275.0)
OPACITY = 0.55
SCALE = 5
"""Pixels per voxel: phantoms are coarse."""


def read_array(file: Path) -> np.ndarray:
    """Read an image or a label map."""
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def richest_slice(labels: np.ndarray) -> int:
    """Return the coronal slice (index along y) that shows most organs; of several the one in their middle."""
    organs = [len(np.unique(labels[:, y])) for y in range(labels.shape[1])]
    best = np.flatnonzero(np.asarray(organs) == max(organs))
    return int(best[len(best) // 2])


def overlay(image_hu: np.ndarray, labels: np.ndarray | None, *, y: int, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Return a coronal slice, head up, with the labels over it: uint8 (rows, columns, 3).

    Args:
        image_hu: The CT.
        labels: Of the same shape; None for the CT alone.
        y: Index of the slice.
        spacing_mm: Distance of voxels along z and x, so that the picture has the body's proportions.
    """
    low, high = WINDOW_HU
    grey = np.clip((image_hu[:, y].astype(float) - low) / (high - low), 0, 1)
    pixels = np.repeat(grey[:, :, None], 3, axis=2)
    if labels is not None:
        marked = labels[:, y] > 0
        colours = np.array([colour(label) for label in range(int(labels.max()) + 1)])
        pixels[marked] = (1 - OPACITY) * pixels[marked] + OPACITY * colours[labels[:, y][marked]]
    rows = max(1, round(SCALE * spacing_mm[0] / spacing_mm[1]))
    pixels = pixels[::-1].repeat(rows, axis=0).repeat(SCALE, axis=1)
    return np.rint(255 * pixels).astype(np.uint8)


def colour(label: int) -> tuple[float, float, float]:
    """Return the colour of a label, red, green and blue in [0, 1]; neighbouring numbers differ much."""
    return colorsys.hsv_to_rgb((0.61803 * label) % 1, 0.75, 1.0)
