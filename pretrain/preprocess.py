"""One checked volume → the array that is cached: canonical orientation, target spacing, body only, int16.

SimpleITK's (x, y, z) ends here: arrays that leave this file are (z, y, x).
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from nnunetv2.preprocessing.normalization import default_normalization_schemes

from nnunetv2_voco.pretrain.body import find_body

AIR_HU = -1024
HIGHEST_HU = 3071
"""Upper end of a scanner's 12-bit range; metal beyond it is cut."""

MAP_BLOCK = 8
"""Edge in voxels of the blocks in which the share of body is recorded."""

HISTOGRAM_STEP_HU = 4
HISTOGRAM_EDGES = np.arange(AIR_HU, HIGHEST_HU + 2, HISTOGRAM_STEP_HU) - 0.5
"""Bins of 4 HU in which the body's voxels are counted."""

ALIGNED = 1e-5
"""Share of a voxel by which two grids may differ anywhere and still be one: no value changes by a tenth of a HU."""

STEPS_PER_UNIT = 1000
"""Normalised images other than CT are stored as integer thousandths."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What every cached volume is brought to; two runs with equal targets share a cache.

    Attributes:
        spacing_mm: Along the axes of the cached array.
        transpose: Order of the LPS-oriented (z, y, x) axes in the cached array, as `transpose_forward` in plans.
        normalization: None for CT, which is stored in HU and normalised on reading; else the name of the nnU-Net
            class that normalises the whole volume before it is stored.
        use_mask_for_norm: As in plans; only used with `normalization`.
        lossy: Largest error in HU that the cache makes, see `near_lossless.py`; 0 stores every value as it is.
        version: Changes whenever pre-processing gives another result.
    """

    spacing_mm: tuple[float, float, float]
    transpose: tuple[int, int, int] = (0, 1, 2)
    normalization: str | None = None
    use_mask_for_norm: bool = False
    lossy: int = 0
    version: int = 2

    @property
    def hounsfield(self) -> bool:
        """Whether the stored integers are HU."""
        return self.normalization is None

    @property
    def digest(self) -> str:
        """Short name of the target, equal for equal targets."""
        fields = {**asdict(self), "spacing_mm": [float(s) for s in self.spacing_mm]}  # 1 and 1.0 are equal
        if not self.lossy:
            del fields["lossy"]  # which caches had not that were made before it
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class PreparedVolume:
    """What is cached of one volume.

    Attributes:
        array: int16 (z, y, x): HU, or thousandths of normalised units.
        body_map: uint8, share of body in 0…255 of each block of `MAP_BLOCK` voxels, (z, y, x).
        histogram: Counts of the body's HU in the bins of `HISTOGRAM_EDGES`; None if not in HU.
        content: Digest of the voxels before resampling: equal for two copies of one volume, in whatever format.
        origin_mm: Where the first voxel lies in the oriented image's own frame, (x, y, z) before `Target.transpose`.
    """

    array: np.ndarray
    body_map: np.ndarray
    histogram: np.ndarray | None
    content: str
    origin_mm: tuple[float, ...] = (0.0, 0.0, 0.0)


def prepare(image: sitk.Image, target: Target) -> PreparedVolume:
    """Orient, crop to the body, resample linearly and store as int16.

    Linear interpolation as in the authors' pre-processing. Outside the body a CT is set to air, which removes the
    table.

    Args:
        image: 3D, int16 HU or float32, orthonormal direction.
        target: What to bring it to.

    Raises:
        ValueError: If nothing but background is left.
    """
    image = orient(image)
    content = content_digest(image)
    spacing_lps_zyx = np.array(target.spacing_mm)[np.argsort(target.transpose)]
    mask = find_body(image) if target.hounsfield else _nonzero(image)
    if not target.hounsfield:
        image, mask = _normalise(image, mask, target)
    grid = body_grid(mask, image, spacing_xyz=spacing_lps_zyx[::-1].tolist())
    # interpolated as float32: into integers SimpleITK would cut decimals off instead of rounding
    array = sitk.GetArrayFromImage(resample(image, grid))
    body = nearest(mask, grid).view(bool)
    if target.hounsfield:
        array[~body] = AIR_HU
        array = _whole(array, AIR_HU, HIGHEST_HU)
    else:
        array *= STEPS_PER_UNIT
        array = _whole(array, -32768, 32767)
    array, body = (np.ascontiguousarray(a.transpose(target.transpose)) for a in (array, body))
    histogram = count_hu(array[body][::7]) if target.hounsfield else None
    return PreparedVolume(array, block_means(body, MAP_BLOCK), histogram, content, grid.GetOrigin())


def orient(image: sitk.Image) -> sitk.Image:
    """Bring the axes to LPS; what is left of an oblique acquisition is kept as it is, as nnU-Net does."""
    image = sitk.DICOMOrient(image, "LPS")
    image.SetDirection(np.eye(3).ravel())
    return image


def content_digest(oriented: sitk.Image) -> str:
    """Digest of the voxels: equal for two copies of one volume, in whatever format."""
    return hashlib.sha256(sitk.GetArrayViewFromImage(oriented).data).hexdigest()[:20]


def block_means(mask: np.ndarray, block: int) -> np.ndarray:
    """Share of True in each block of a mask as uint8 in 0…255; blocks beyond the edge count the missing as False."""
    padded = np.pad(mask, [(0, -size % block) for size in mask.shape])
    z, y, x = (size // block for size in padded.shape)
    counts = padded.reshape(z, block, y, block, x, block).sum(axis=1, dtype=np.uint8)  # planes first: the fastest way
    counts = counts.sum(axis=2, dtype=np.uint16).sum(axis=3, dtype=np.uint32)
    return np.rint(counts * (255 / block**3)).astype(np.uint8)


def count_hu(values: np.ndarray) -> np.ndarray:
    """Count whole HU in [`AIR_HU`, `HIGHEST_HU`] in the bins of `HISTOGRAM_EDGES`."""
    return np.bincount((values - AIR_HU) // HISTOGRAM_STEP_HU, minlength=len(HISTOGRAM_EDGES) - 1)


def body_grid(mask: sitk.Image, image: sitk.Image, *, spacing_xyz: list[float]) -> sitk.Image:
    """Return an empty image with the target spacing that covers the mask's bounding box within the image."""
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(mask)
    if not shape.HasLabel(1):
        raise ValueError("nothing but background")
    box = shape.GetBoundingBox(1)  # x, y, z of the first voxel, then the size
    half = [0.5 * s for s in mask.GetSpacing()]
    lower = [o + s * i - h for o, s, i, h in zip(mask.GetOrigin(), mask.GetSpacing(), box[:3], half, strict=True)]
    upper = [low + s * n for low, s, n in zip(lower, mask.GetSpacing(), box[3:], strict=True)]
    ends = [start + n == size for start, n, size in zip(box[:3], box[3:], mask.GetSize(), strict=True)]
    image_lower = [o - 0.5 * s for o, s in zip(image.GetOrigin(), image.GetSpacing(), strict=True)]
    image_upper = [low + s * n for low, s, n in zip(image_lower, image.GetSpacing(), image.GetSize(), strict=True)]
    lower = [max(a, b) for a, b in zip(lower, image_lower, strict=True)]
    # shrinking drops what does not fill a coarse voxel, so a body that reaches the mask's end may go on beyond it
    upper = [b if end else min(a, b) for a, b, end in zip(upper, image_upper, ends, strict=True)]
    size = [max(1, round((b - a) / s)) for a, b, s in zip(lower, upper, spacing_xyz, strict=True)]
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetSpacing(spacing_xyz)
    grid.SetOrigin([a + 0.5 * s for a, s in zip(lower, spacing_xyz, strict=True)])
    return grid


def resample(image: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """Resample an image whose axes are LPS onto the voxels of `grid`; beyond its rim the nearest voxel counts.

    Returns:
        float32, interpolated linearly.
    """
    corner = _corner_if_aligned(image, grid)
    if corner is not None:  # the same values without looking for them
        return sitk.Cast(sitk.RegionOfInterest(image, grid.GetSize(), corner), sitk.sitkFloat32)
    resample = sitk.ResampleImageFilter()
    resample.SetSize(grid.GetSize())
    resample.SetOutputSpacing(grid.GetSpacing())
    resample.SetOutputOrigin(grid.GetOrigin())
    resample.SetInterpolator(sitk.sitkLinear)
    resample.SetOutputPixelType(sitk.sitkFloat32)
    resample.UseNearestNeighborExtrapolatorOn()  # half a voxel at the rim lies beyond the outermost centres
    return resample.Execute(image)


def _corner_if_aligned(image: sitk.Image, grid: sitk.Image) -> list[int] | None:
    """Index of `grid`'s first voxel in the image, (x, y, z), where every voxel of `grid` is one of the image's."""
    spacing = np.array(image.GetSpacing())
    corner = (np.array(grid.GetOrigin()) - image.GetOrigin()) / spacing
    whole, size = np.rint(corner).astype(int), np.array(grid.GetSize())
    drift = np.abs(corner - whole) + np.abs(np.array(grid.GetSpacing()) / spacing - 1) * size
    if (drift > ALIGNED).any() or (whole < 0).any() or (whole + size > image.GetSize()).any():
        return None
    return [int(n) for n in whole]


def nearest(mask: sitk.Image, grid: sitk.Image) -> np.ndarray:
    """Give each voxel of `grid` the value of the mask's nearest voxel, (z, y, x); axes of both are LPS.

    What SimpleITK's nearest-neighbour resampling does, but for voxels half-way between two others, whose side rounding
    decides. It looks at each voxel by itself, a fifth of pre-processing; here rows are repeated as a whole.
    """
    array = sitk.GetArrayViewFromImage(mask)
    for axis in range(3):  # of SimpleITK: x, y, z; the contiguous one first, while the array is small
        centres = grid.GetOrigin()[axis] + grid.GetSpacing()[axis] * np.arange(grid.GetSize()[axis])
        index = np.floor((centres - mask.GetOrigin()[axis]) / mask.GetSpacing()[axis] + 0.5).astype(int)
        array = array.take(np.clip(index, 0, mask.GetSize()[axis] - 1), axis=2 - axis)
    return array


def _whole(values: np.ndarray, low: int, high: int) -> np.ndarray:
    """Round and limit, in place, then cast to int16: a cast alone would cut decimals off."""
    np.rint(values, out=values)
    return np.clip(values, low, high, out=values).astype(np.int16)


def _nonzero(image: sitk.Image) -> sitk.Image:
    """Return what nnU-Net's crop to the non-zero region keeps: non-zero voxels with holes filled."""
    return sitk.BinaryFillhole(sitk.Cast(image != 0, sitk.sitkUInt8))


def _normalise(image: sitk.Image, mask: sitk.Image, target: Target) -> tuple[sitk.Image, sitk.Image]:
    """Crop to the mask's bounding box and normalise with nnU-Net's class, as nnU-Net does; return the mask as well."""
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(mask)
    if not shape.HasLabel(1):
        raise ValueError("nothing but background")
    box = shape.GetBoundingBox(1)  # x, y, z of the first voxel, then the size
    image, mask = (sitk.RegionOfInterest(whole, box[3:], box[:3]) for whole in (image, mask))
    scheme = getattr(default_normalization_schemes, str(target.normalization))
    normaliser = scheme(use_mask_for_norm=target.use_mask_for_norm, intensityproperties={})
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    segmentation = sitk.GetArrayFromImage(mask).astype(np.int8) - 1  # nnU-Net marks the outside by -1
    normalised = sitk.GetImageFromArray(normaliser.run(array, segmentation))
    normalised.CopyInformation(image)
    return normalised, mask


def describe_interpolation() -> dict[str, Any]:
    """How volumes were resampled, for the checkpoint."""
    return {"interpolation": "linear"}
