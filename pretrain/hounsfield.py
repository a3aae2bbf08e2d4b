"""Decide whether values are Hounsfield units, and mend what can be mended safely."""

import numpy as np

from nnunetv2_voco.pretrain.rejection import RejectedVolume

AIR_HU = -1024
"""The lowest value kept: air is -1000 HU, and scanners store down to -1024 in 12 bits."""
SOFT_TISSUE_HU = (-200, 300)
LEAST_SOFT_TISSUE = 0.05
LEAST_FAT_AND_AIR = 0.001
_SAMPLE = 2_000_000
_PART = 10_000
_FEW_VALUES = 48  # label maps, masks and phantoms of constants; the emptiest CT has hundreds
_WRAPPED = 65536 - 4096  # -4096 HU and above, read as unsigned


def require_finite(values: np.ndarray) -> None:
    """Raise where voxels are NaN or infinite.

    Raises:
        RejectedVolume: With their share.
    """
    if np.issubdtype(values.dtype, np.floating):
        count = values.size - int(np.isfinite(values).sum())
        if count:
            raise RejectedVolume(f"{count} voxels ({_percent(count / values.size)}) are NaN or infinite")


def require_contrast(values: np.ndarray) -> None:
    """Raise where all voxels are alike.

    Raises:
        RejectedVolume: With the one value.
    """
    if values.min() == values.max():
        raise RejectedVolume(f"every voxel has the value {values.min():g}")


def to_hounsfield(values: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Check that the values are Hounsfield units and return them as int16.

    Args:
        values: Finite numbers of any dtype, shape (z, y, x).

    Returns:
        int16 array in [-1024, 32767], and in words what was mended.

    Raises:
        RejectedVolume: The values are those of a label map, an 8-bit image, or otherwise no HU.
    """
    require_contrast(values)
    mended = []
    sample = _sample(values)
    if _wrapped_share(sample) > 0.01 and values.min() >= 0 and values.max() <= 65535:
        values = np.where(values >= 32768, values.astype(np.int32) - 65536, values.astype(np.int32))
        sample = _sample(values)
        mended.append("negative values that were stored as unsigned 16-bit set right")
    _refuse_label_map(values, sample)
    if values.min() >= 0:
        if not _looks_like_hu_plus_1024(sample):
            raise RejectedVolume(
                f"no value is below 0 ({values.min():g} to {values.max():g}): not HU, where air and fat are negative"
            )
        limited = np.clip(values, 0, 65535)
        values = limited.astype(np.float32 if values.dtype.kind == "f" else np.int32) - 1024
        sample = sample - 1024
        mended.append("values look like HU + 1024: 1024 subtracted")
    _require_soft_tissue(sample)
    whole, padding = _without_padding(values)
    return whole, tuple(mended + padding)


def _sample(values: np.ndarray) -> np.ndarray:
    """Every n-th voxel, float32, in an odd stride so that no column of the volume is met again and again."""
    stride = max(1, values.size // _SAMPLE) | 1
    return values.ravel()[::stride].astype(np.float32)


def _wrapped_share(sample: np.ndarray) -> float:
    return float((sample >= _WRAPPED).mean())


def _refuse_label_map(values: np.ndarray, sample: np.ndarray) -> None:
    if values.min() >= 0 and values.max() <= 255:
        raise RejectedVolume(
            f"values of {values.min():g} to {values.max():g} only: a label map or an 8-bit image, not HU"
        )
    # a part that holds more values spares sorting the rest
    if all(len(np.unique(part)) <= _FEW_VALUES for part in (sample[:_PART], sample, values)):
        raise RejectedVolume(f"only {len(np.unique(values))} different values: a label map or mask, not HU")


def _looks_like_hu_plus_1024(sample: np.ndarray) -> bool:
    """Whether there is air near 0 and a narrow peak of fat and soft tissue near 1024, in values without negatives.

    MR spreads its tissue widely, so the share of the peak among all dense voxels tells the two apart.
    """
    dense = sample >= 600
    peak = (sample >= 880) & (sample <= 1180)
    return bool((sample < 200).mean() > 0.01 and dense.mean() > 0.01 and peak.sum() > 0.6 * dense.sum())


def _require_soft_tissue(sample: np.ndarray) -> None:
    """Refuse values whose distribution is not that of a body.

    The share is taken of the voxels denser than lung and air, since a limb may fill 2 % of the field of view, and a
    crop within the abdomen may hold no air at all.
    """
    dense = sample[sample > -500]
    low, high = SOFT_TISSUE_HU
    share = float(((dense > low) & (dense < high)).mean()) if dense.size else 0.0
    if dense.size < 0.002 * sample.size or share < LEAST_SOFT_TISSUE:
        raise RejectedVolume(
            f"not HU or no body: {_percent(dense.size / sample.size)} of the voxels are denser than -500 HU, "
            f"{_percent(share)} of these look like soft tissue ({low} to {high} HU)"
        )
    light = float((sample < -30).mean())
    if light < LEAST_FAT_AND_AIR:
        raise RejectedVolume(f"not HU: {_percent(light)} of the voxels are below -30 HU, as fat and air would be")
    span = float(np.subtract(*np.percentile(sample, (99.5, 0.5))))
    if span < 150:
        raise RejectedVolume(f"values span only {span:.3g} from the 0.5th to the 99.5th percentile: not HU")


def _without_padding(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Round to int16 and raise everything below air, such as the -3024 outside a scanner's circle, to air."""
    info = np.iinfo(np.int16)
    if values.dtype == np.int16:
        whole = values.copy()
    else:
        rounded = np.rint(values) if values.dtype.kind == "f" else values
        whole = np.clip(rounded, info.min, info.max).astype(np.int16)
    below = whole < AIR_HU
    count = int(below.sum())
    if not count:
        return whole, []
    counts = np.bincount(whole[below].astype(np.int32) - info.min)
    whole[below] = AIR_HU
    share = count / whole.size
    if share < 1e-3:
        return whole, []
    common, lowest = int(counts.argmax()) + info.min, int(counts.nonzero()[0][0]) + info.min
    what = f"padding of {common}" if counts.max() > 0.9 * count else f"values down to {lowest}"
    return whole, [f"{what} set to {AIR_HU} ({_percent(share)} of voxels)"]


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"
