"""Resampling onto a grid with the same axes, plane by plane: the axes are interpolated one after the other.

Positions are given per axis, in voxels of the volume: 0 is the first voxel's centre. Beyond the outermost centres the
nearest voxel counts. Arrays are (z, y, x).
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

_TIE = 1e-6
"""Positions this close below the middle between two voxels count as the middle, whatever the rounding before."""


class _Axis(NamedTuple):
    """Which two voxels a position lies between, and how far on the way to the second, in [0, 1]."""

    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray

    @property
    def on_voxels(self) -> bool:
        """Whether nothing has to be interpolated."""
        return not self.weight.any()


def linear_planes(volume: np.ndarray, positions: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Iterator[np.ndarray]:
    """Interpolate linearly.

    Args:
        volume: int16 or float32.
        positions: Along z, y and x.

    Yields:
        The planes of constant z, float32 (y, x); each may be written to.
    """
    z, y, x = (_between(at, size) for at, size in zip(positions, volume.shape, strict=True))

    @lru_cache(maxsize=2)  # thick slices: a source plane serves several planes in a row
    def in_plane(index: int) -> np.ndarray:
        return _along_columns(_along_rows(volume[index], y), x)

    for low, high, weight in zip(z.low.tolist(), z.high.tolist(), z.weight, strict=True):
        if weight == 0:
            yield in_plane(low).copy()
        else:
            plane = in_plane(high) - in_plane(low)
            plane *= weight
            plane += in_plane(low)
            yield plane


def nearest_planes(volume: np.ndarray, positions: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Iterator[np.ndarray]:
    """Take the nearest voxel, of two equally near ones the second.

    Args:
        volume: Of any type.
        positions: Along z, y and x.

    Yields:
        The planes of constant z, (y, x), not to be written to.
    """
    z, y, x = (
        np.clip(np.floor(at + 0.5 + _TIE).astype(int), 0, size - 1)
        for at, size in zip(positions, volume.shape, strict=True)
    )
    in_plane = lru_cache(maxsize=1)(lambda index: volume[index].take(y, axis=0).take(x, axis=1))
    for index in z.tolist():
        yield in_plane(index)


def _between(positions: np.ndarray, size: int) -> _Axis:
    inside = np.clip(positions, 0, size - 1)
    low = np.minimum(inside.astype(int), max(0, size - 2))
    return _Axis(low, np.minimum(low + 1, size - 1), (inside - low).astype(np.float32))


def _along_rows(plane: np.ndarray, axis: _Axis) -> np.ndarray:
    low = plane.take(axis.low, axis=0).astype(np.float32)
    if axis.on_voxels:
        return low
    step = plane.take(axis.high, axis=0).astype(np.float32)
    step -= low
    step *= axis.weight[:, None]
    step += low
    return step


def _along_columns(plane: np.ndarray, axis: _Axis) -> np.ndarray:
    low = plane.take(axis.low, axis=1)
    if axis.on_voxels:
        return low
    step = plane.take(axis.high, axis=1)
    step -= low
    step *= axis.weight
    step += low
    return step
