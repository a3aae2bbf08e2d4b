"""One checked volume → the array that is cached: canonical orientation, target spacing, body only, int16.

SimpleITK's (x, y, z) ends here: arrays that leave this file are (z, y, x).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from nnunetv2.preprocessing.normalization import default_normalization_schemes

from nnunetv2_voco.pretrain.body import find_body
from nnunetv2_voco.pretrain.resample import linear_planes, nearest_planes

AIR_HU = -1024
HIGHEST_HU = 3071
"""Upper end of a scanner's 12-bit range; metal beyond it is cut."""

MAP_BLOCK = 8
"""Edge in voxels of the blocks in which the share of body is recorded."""

HISTOGRAM_STEP_HU = 4
HISTOGRAM_EDGES = np.arange(AIR_HU, HIGHEST_HU + 2, HISTOGRAM_STEP_HU) - 0.5
"""Bins of 4 HU in which the body's voxels are counted."""

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
    grid = body_grid(mask, image, spacing_zyx=spacing_lps_zyx)
    array, body = np.empty(grid.shape, np.int16), np.empty(grid.shape, bool)
    values = linear_planes(sitk.GetArrayViewFromImage(image), grid.positions(image))
    inside = nearest_planes(sitk.GetArrayViewFromImage(mask).view(bool), grid.positions(mask))
    for array_YX, body_YX, values_YX, inside_YX in zip(array, body, values, inside, strict=True):
        body_YX[...] = inside_YX
        if target.hounsfield:
            values_YX[~inside_YX] = AIR_HU
            array_YX[...] = _whole(values_YX, AIR_HU, HIGHEST_HU)
        else:
            array_YX[...] = _whole(values_YX * STEPS_PER_UNIT, -32768, 32767)
    array, body = (np.ascontiguousarray(a.transpose(target.transpose)) for a in (array, body))
    histogram = count_hu(array[body][::7]) if target.hounsfield else None
    x, y, z = grid.first_mm[::-1].tolist()
    return PreparedVolume(array, block_means(body, MAP_BLOCK), histogram, content, (x, y, z))


def orient(image: sitk.Image) -> sitk.Image:
    """Bring the axes to LPS; what is left of an oblique acquisition is kept as it is, as nnU-Net does."""
    image = sitk.DICOMOrient(image, "LPS")
    image.SetDirection(np.eye(3).ravel())
    return image


def content_digest(oriented: sitk.Image) -> str:
    """Digest of the voxels: equal for two copies of one volume, in whatever format."""
    return hashlib.sha256(sitk.GetArrayViewFromImage(oriented)).hexdigest()[:20]


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


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a cached array lie, in the frame of an image whose axes are LPS.

    Attributes:
        first_mm: Centre of the first voxel, (z, y, x).
        spacing_mm: Distance of voxels, (z, y, x).
        shape: Number of voxels, (z, y, x).
    """

    first_mm: np.ndarray
    spacing_mm: np.ndarray
    shape: tuple[int, int, int]

    def positions(self, image: sitk.Image) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the grid's planes along z, y and x lie in an image, in its voxels."""
        start = (self.first_mm - image.GetOrigin()[::-1]) / image.GetSpacing()[::-1]
        step = self.spacing_mm / image.GetSpacing()[::-1]
        z, y, x = (a + s * np.arange(n) for a, s, n in zip(start, step, self.shape, strict=True))
        return z, y, x


def body_grid(mask: sitk.Image, image: sitk.Image, *, spacing_zyx: np.ndarray) -> Grid:
    """Lay a grid over the mask's bounding box within the image.

    Args:
        mask: 1 where the body is.
        image: What will be resampled.
        spacing_zyx: Distance of the grid's voxels in mm.

    Raises:
        ValueError: If the mask is empty.
    """
    box = _bounding_box(mask)
    lower, upper = _edges_mm(mask, box[:3], box[3:])
    image_lower, image_upper = _edges_mm(image, (0, 0, 0), image.GetSize())
    ends = np.add(box[:3], box[3:])[::-1] == mask.GetSize()[::-1]
    lower = np.maximum(lower, image_lower)
    # shrinking drops what does not fill a coarse voxel, so a body that reaches the mask's end may go on beyond it
    upper = np.where(ends, image_upper, np.minimum(upper, image_upper))
    z, y, x = (max(1, round(n)) for n in ((upper - lower) / spacing_zyx).tolist())
    return Grid(lower + 0.5 * spacing_zyx, spacing_zyx, (z, y, x))


def _edges_mm(image: sitk.Image, first_xyz: Sequence[int], size_xyz: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edges of a box of voxels, (z, y, x)."""
    spacing = np.array(image.GetSpacing()[::-1])
    lower = image.GetOrigin()[::-1] + spacing * (np.array(first_xyz[::-1]) - 0.5)
    return lower, lower + spacing * size_xyz[::-1]


def _bounding_box(mask: sitk.Image) -> tuple[int, ...]:
    """First voxel (x, y, z), then the size, of what is not 0.

    Raises:
        ValueError: If everything is 0.
    """
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(mask)
    if not shape.HasLabel(1):
        raise ValueError("nothing but background")
    return shape.GetBoundingBox(1)


def _whole(values: np.ndarray, low: int, high: int) -> np.ndarray:
    """Round and limit, in place: a cast alone would cut decimals off."""
    np.rint(values, out=values)
    return np.clip(values, low, high, out=values)


def _nonzero(image: sitk.Image) -> sitk.Image:
    """Return what nnU-Net's crop to the non-zero region keeps: non-zero voxels with holes filled."""
    return sitk.BinaryFillhole(sitk.Cast(image != 0, sitk.sitkUInt8))


def _normalise(image: sitk.Image, mask: sitk.Image, target: Target) -> tuple[sitk.Image, sitk.Image]:
    """Crop to the mask's bounding box and normalise with nnU-Net's class, as nnU-Net does; return the mask as well."""
    box = _bounding_box(mask)
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
