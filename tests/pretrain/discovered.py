"""Blank volumes to be found, and what was found in a few words."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_voco.pretrain.discover import Discovery


def write(path: Path, *, shape: tuple[int, ...] = (8, 16, 16), dtype: type = np.int16, vector: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.zeros(shape, dtype=dtype), isVector=vector)
    sitk.WriteImage(image, str(path))
    return path


def names(found: Discovery) -> list[str]:
    return [source.name for source in found.sources]


def reasons(found: Discovery) -> dict[str, str]:
    return {skipped.name: skipped.reason for skipped in found.skipped}
