"""Mend the geometry of a stack of slices: uneven gaps, tilted gantries, sheared axes.

Frame: points and vectors are (x, y, z) in mm in the patient's LPS frame, as DICOM and ITK have it. Axes of a volume
are the columns of a 3×3 matrix of steps in mm from voxel to voxel, in the order of the voxel indices x, y, z.
"""

import numpy as np
import SimpleITK as sitk

from nnunetv2_voco.pretrain.rejection import RejectedVolume

SPACING_RANGE_MM = (0.1, 20.0)
LARGEST_MENDABLE_GAP_MM = 10.0
LARGEST_MENDABLE_GAP_RATIO = 2.5
LARGEST_SHEAR_DEGREES = 45.0
_SAME_POSITION_MM = 0.01
_IRREGULARITY = 0.1  # of the slice distance: positions rounded to 0.1 mm stay below it
_NEGLIGIBLE_SHIFT_VOX = 0.5  # over the whole volume: resampling would blur more than it mends


def check_spacing(spacing_mm: np.ndarray) -> None:
    """Raise where a spacing is not a number or out of `SPACING_RANGE_MM`.

    Raises:
        RejectedVolume: Naming the spacing.
    """
    low, high = SPACING_RANGE_MM
    if not (np.isfinite(spacing_mm).all() and (spacing_mm >= low).all() and (spacing_mm <= high).all()):
        text = " × ".join(f"{s:.4g}" for s in spacing_mm)
        raise RejectedVolume(f"spacing of {text} mm is out of the range of {low} to {high} mm")


def slice_weights(along_mm: np.ndarray) -> tuple[np.ndarray, str | None]:
    """Where to put evenly spaced slices among slices at the given positions.

    Args:
        along_mm: Positions along the slice normal, ascending, shape (Z,).

    Returns:
        Fractional slice indices of the even slices, shape (Z',), which are 0, 1, … where the slices are even
        already; and in words what has to be mended, or None.

    Raises:
        RejectedVolume: Two slices lie at the same position, or a gap is too large to interpolate across.
    """
    gaps = np.diff(along_mm)
    median = float(np.median(gaps))
    if (gaps < max(_SAME_POSITION_MM, 0.05 * median)).any():
        where = along_mm[int(gaps.argmin())]
        count = int((gaps < max(_SAME_POSITION_MM, 0.05 * median)).sum()) + 1
        raise RejectedVolume(f"{count} slices share positions with others, the first at {where:.1f} mm")
    even = np.linspace(along_mm[0], along_mm[-1], len(along_mm))
    if np.abs(along_mm - even).max() <= _IRREGULARITY * median:
        return np.arange(len(along_mm), dtype=float), None
    largest = float(gaps.max())
    if largest > min(LARGEST_MENDABLE_GAP_MM, LARGEST_MENDABLE_GAP_RATIO * median):
        where = along_mm[int(gaps.argmax())]
        raise RejectedVolume(
            f"slices are missing: a gap of {largest:.1f} mm at {where:.1f} mm, the others are {median:.1f} mm"
        )
    count = int(np.floor((along_mm[-1] - along_mm[0]) / median + 1e-3)) + 1
    targets = np.minimum(along_mm[0] + median * np.arange(count), along_mm[-1])
    indices = np.interp(targets, along_mm, np.arange(len(along_mm)))
    return indices, f"slice gaps of {gaps.min():.1f} to {largest:.1f} mm interpolated to {median:.1f} mm"


def interpolate_slices(values: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Blend neighbouring slices linearly.

    Args:
        values: Slices along the first axis, shape (Z, …).
        indices: Fractional slice indices in [0, Z - 1], shape (Z',).

    Returns:
        float32 array for floats, otherwise the dtype of `values` (rounded); shape (Z', …).
    """
    lower = np.minimum(indices.astype(int), len(values) - 2)
    whole = np.issubdtype(values.dtype, np.integer)
    result = np.empty((len(indices), *values.shape[1:]), dtype=values.dtype if whole else np.float32)
    for i, (low, weight) in enumerate(zip(lower, indices - lower, strict=True)):
        blend = (1 - weight) * values[low].astype(np.float32) + weight * values[low + 1].astype(np.float32)
        result[i] = np.rint(blend) if whole else blend
    return result


def shear_degrees(axes: np.ndarray) -> float:
    """Largest departure of the angle between two axes from 90°, in degrees.

    Raises:
        RejectedVolume: The axes do not span a volume.
    """
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(axes).all() or (lengths == 0).any():
        raise RejectedVolume("an axis has no direction in the header")
    unit = axes / lengths
    cosines = np.abs((unit.T @ unit)[[0, 0, 1], [1, 2, 2]])
    if abs(np.linalg.det(unit)) < 1e-3:
        raise RejectedVolume("the axes of the volume lie in one plane")
    return float(np.rad2deg(np.arcsin(min(cosines.max(), 1.0))))


def to_image(values: np.ndarray, origin: np.ndarray, axes: np.ndarray) -> sitk.Image:
    """Wrap an array as an image whose direction cosines are exactly orthonormal.

    Args:
        values: Shape (z, y, x).
        origin: Centre of the first voxel.
        axes: Steps in mm as columns, perpendicular but for rounding.
    """
    image = sitk.GetImageFromArray(values)
    lengths = np.linalg.norm(axes, axis=0)
    u, _, v = np.linalg.svd(axes / lengths)  # the nearest orthonormal matrix
    image.SetSpacing([round(float(s), 7) for s in lengths])  # without the noise of float32 headers
    image.SetOrigin([round(float(o), 6) for o in origin])
    image.SetDirection([float(d) for d in (u @ v).ravel()])
    return image


def straighten(values: np.ndarray, origin: np.ndarray, axes: np.ndarray, *, fill: float) -> tuple[sitk.Image, float]:
    """Bring a sheared volume onto perpendicular axes by linear interpolation; a straight one is only wrapped.

    Planes of the two first axes stay where they are: a tilted gantry's slices are shifted within themselves only.
    The new volume is as large as the sheared one reaches, and `fill` where there was no data.

    Args:
        values: int16 or float32 array (z, y, x).
        origin: Centre of the first voxel.
        axes: Steps in mm as columns.
        fill: Value outside the original volume.

    Returns:
        The image, of the dtype of `values`, and the angle in degrees by which axes were tilted (0 where it was
        negligible and nothing was resampled).

    Raises:
        RejectedVolume: The axes are tilted by more than `LARGEST_SHEAR_DEGREES`.
    """
    angle = shear_degrees(axes)
    if angle > LARGEST_SHEAR_DEGREES:
        raise RejectedVolume(
            f"slices are tilted by {angle:.1f}°, at most {LARGEST_SHEAR_DEGREES:.0f}° can be corrected"
        )
    size = np.array(values.shape[::-1])
    shear = np.linalg.qr(axes)[1]
    drift_vox = np.abs(np.triu(shear, 1)) * size / np.abs(np.diag(shear))[:, None]
    if drift_vox.max() < _NEGLIGIBLE_SHIFT_VOX:
        return to_image(values, origin, axes), 0.0

    straight, spacing = _perpendicular(axes)
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in size], indexing="ij"), axis=-1).reshape(-1, 3)
    reach = corners @ (straight.T @ axes).T / spacing  # of each corner, in new voxels from the origin
    first = np.floor(reach.min(axis=0) + 1e-3)
    new_size = np.ceil(reach.max(axis=0) - 1e-3) - first + 1
    new_origin = origin + straight @ (first * spacing)

    to_index = sitk.AffineTransform(3)  # from a point in mm to the voxel index of the sheared volume
    inverse = np.linalg.inv(axes)
    to_index.SetMatrix(inverse.ravel().tolist())
    to_index.SetTranslation((-inverse @ origin).tolist())
    resampled = sitk.Resample(
        sitk.GetImageFromArray(values),
        [int(n) for n in new_size],
        to_index,
        sitk.sitkLinear,
        new_origin.tolist(),
        spacing.tolist(),
        straight.ravel().tolist(),
        float(fill),
        sitk.sitkFloat32,
    )
    if np.issubdtype(values.dtype, np.integer):
        resampled = sitk.Cast(sitk.Round(resampled), sitk.sitkInt16)  # a cast alone would cut the fraction off
    return resampled, angle


def _perpendicular(axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gram-Schmidt on the columns: orthonormal directions with the axes' signs, and the spacing in mm along them."""
    directions, triangle = np.linalg.qr(axes)
    signs = np.sign(np.diag(triangle))
    return directions * signs, np.abs(np.diag(triangle))
