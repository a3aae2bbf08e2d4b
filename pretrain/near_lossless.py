"""A cache with a bounded error: HU are stored in steps, and every voxel that is read differs by at most the bound.

The lowest bits of a CT are noise, which no compressor can shorten: a bound of E HU stores one of every 2 · E + 1
values, which saves about log₂(2 · E + 1) bits a voxel. Air stays air exactly. A scanner's noise has a standard
deviation of 10 to 30 HU, the rounding error that E allows one of (2 · E + 1) / √12: 1.4 HU for E = 2.
"""

import numpy as np

from nnunetv2_voco.pretrain.preprocess import AIR_HU


def quantise(hu: np.ndarray, bound: int) -> np.ndarray:
    """Return the number of each voxel's step, counted from air.

    Args:
        hu: int16, of any shape, −1024 or more.
        bound: Largest error in HU; 0 returns the array as it is.
    """
    if bound == 0:
        return hu
    return ((hu.astype(np.int32) + (bound - AIR_HU)) // (2 * bound + 1)).astype(np.int16)


def restore(steps: np.ndarray, bound: int) -> np.ndarray:
    """Return the HU in the middle of each step, int16; `steps` may be overwritten."""
    if bound == 0:
        return steps
    steps *= np.int16(2 * bound + 1)
    steps += np.int16(AIR_HU)
    return steps
