"""Read a DICOM series slice by slice: geometry from the headers, pixels decoded by GDCM through SimpleITK.

ITK's own series reader is not used: it applies the pixel type of the first slice to all, which rounds the values of
series with differing rescale slopes, and takes the spacing from two slices, which is wrong for tilted gantries, gaps
and multi-frame files.
"""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunetv2_voco.pretrain.dicom import DicomHeader, read_headers
from nnunetv2_voco.pretrain.headers import silent_itk
from nnunetv2_voco.pretrain.rejection import RejectedVolume

_SAME_DIRECTION = 2e-3  # of a component of a direction cosine, about 0.1°
_STRAIGHT_MM = 1.0


@dataclass(frozen=True)
class StackGeometry:
    """Where the slices of a series lie.

    Attributes:
        positions_Z3: Centre of the first pixel of each slice in mm, in ascending order along the normal.
        along_mm_Z: Their positions along the normal.
        row_step: Step in mm from pixel to pixel within a row (index x), shape (3,).
        column_step: Step in mm from row to row (index y), shape (3,).
        order_Z: Of each slice its number among the files, or among the frames of one file.
    """

    positions_Z3: np.ndarray
    along_mm_Z: np.ndarray
    row_step: np.ndarray
    column_step: np.ndarray
    order_Z: np.ndarray


def read_geometry(files: tuple[Path, ...]) -> StackGeometry:
    """Read the geometry of a series, or of one multi-frame file, from its headers.

    Raises:
        RejectedVolume: Slices differ in size, pixel spacing or orientation, or lack them.
    """
    headers, failed = read_headers(files)
    if failed or len(headers) < len(files):
        raise RejectedVolume(f"{len(files) - len(headers)} of {len(files)} slices cannot be read")
    if len(files) == 1 and headers[0].frames > 1:
        positions, orientations, spacings = _frames(files[0])
    else:
        positions, orientations, spacings = _slices(headers)
    return _geometry(positions, orientations, spacings)


def read_pixels(files: tuple[Path, ...], geometry: StackGeometry, *, whole: bool) -> np.ndarray:
    """Decode the slices in the order of the geometry, each with its own rescale slope and intercept.

    Args:
        files: As for `read_geometry`.
        geometry: From `read_geometry`.
        whole: Round to int16 (CT) instead of keeping float32.

    Returns:
        int16 or float32 array (slices, rows, columns).

    Raises:
        RejectedVolume: A slice cannot be decoded, or its size is not that of the others.
    """
    if len(files) == 1 and len(geometry.order_Z) > 1:
        frames = _decode(files[0], "the frames")
        if len(frames) != len(geometry.order_Z):
            raise RejectedVolume(f"{len(frames)} frames where the header describes {len(geometry.order_Z)}")
        return _rounded(frames[geometry.order_Z], whole=whole)
    result: np.ndarray | None = None
    for i, number in enumerate(geometry.order_Z):
        pixels = _decode(files[number], f"slice {i + 1} of {len(files)}")[0]
        if result is None:
            result = np.empty((len(files), *pixels.shape), dtype=np.int16 if whole else np.float32)
        if pixels.shape != result.shape[1:]:
            raise RejectedVolume(f"slices of {_size(pixels.shape)} and {_size(result.shape[1:])} pixels are mixed")
        result[i] = _rounded(pixels, whole=whole)
    assert result is not None
    return result


def line_through(positions_Z3: np.ndarray, along_mm_Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Straight line that the corners of slices follow.

    Returns:
        A point of the line at the first slice, and its change per mm along the normal.

    Raises:
        RejectedVolume: A slice lies off the line by more than 1 mm: the slices do not form one stack.
    """
    offset = along_mm_Z - along_mm_Z[0]
    design = np.stack([np.ones_like(offset), offset], axis=1)
    (start, direction), *_ = np.linalg.lstsq(design, positions_Z3, rcond=None)
    off = float(np.abs(design @ np.stack([start, direction]) - positions_Z3).max())
    if off > _STRAIGHT_MM:
        raise RejectedVolume(f"slices are shifted against each other by up to {off:.1f} mm within their planes")
    return start, direction


def _slices(headers: list[DicomHeader]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    for name in ("position", "orientation", "spacing", "shape"):
        count = sum(getattr(header, name) is None for header in headers)
        if count:
            raise RejectedVolume(f"{count} of {len(headers)} slices have no {name} in their header")
    shapes = sorted({header.shape for header in headers if header.shape})
    if len(shapes) > 1:
        raise RejectedVolume(f"slices of {_size(shapes[0])} and {_size(shapes[-1])} pixels are mixed")
    return (
        np.array([header.position for header in headers]),
        np.array([header.orientation for header in headers]),
        np.array([header.spacing for header in headers]),
    )


def _frames(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, orientations and pixel spacings of the frames of an enhanced multi-frame file."""
    from pydicom import dcmread

    tags = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(path, stop_before_pixels=True, specific_tags=list(tags))
            frames = dataset.PerFrameFunctionalGroupsSequence
            shared = dataset.get("SharedFunctionalGroupsSequence")
            common = shared[0] if shared else None

            def values(group: str, name: str) -> np.ndarray:
                found = [getattr(_group(frame, common, group), name) for frame in frames]
                return np.array([[float(number) for number in value] for value in found])

            _require_one_rescale(frames, common)
            return (
                values("PlanePositionSequence", "ImagePositionPatient"),
                values("PlaneOrientationSequence", "ImageOrientationPatient"),
                values("PixelMeasuresSequence", "PixelSpacing"),
            )
    except RejectedVolume:
        raise
    except Exception:  # pydicom raises anything on damaged headers, and its text would quote them
        raise RejectedVolume("multi-frame DICOM without the position, orientation or spacing of its frames") from None


def _group(frame: Any, common: Any, name: str) -> Any:
    sequence = frame.get(name) or common.get(name)
    return sequence[0]


def _require_one_rescale(frames: Any, common: Any) -> None:
    """GDCM applies one rescale to all frames, so refuse files that need several."""
    pairs = set()
    for frame in frames:
        sequence = frame.get("PixelValueTransformationSequence") or (common or {}).get(
            "PixelValueTransformationSequence"
        )
        if sequence:
            pairs.add((float(sequence[0].RescaleSlope), float(sequence[0].RescaleIntercept)))
    if len(pairs) > 1:
        raise RejectedVolume(f"multi-frame DICOM with {len(pairs)} different rescale slopes or intercepts")


def _geometry(positions: np.ndarray, orientations: np.ndarray, spacings: np.ndarray) -> StackGeometry:
    turned = float(np.abs(orientations - orientations[0]).max())
    if turned > _SAME_DIRECTION:
        raise RejectedVolume("slices of different orientation are mixed")
    low, high = spacings.min(axis=0), spacings.max(axis=0)
    if (high > low * 1.001).any():
        raise RejectedVolume(f"pixel spacings of {low[0]:.4g} to {high[0]:.4g} mm are mixed")
    row, column = orientations.mean(axis=0).reshape(2, 3)
    normal = np.cross(row, column)
    if np.linalg.norm(normal) < 0.5:
        raise RejectedVolume("the orientation of the slices spans no plane")
    normal /= np.linalg.norm(normal)
    row = row / np.linalg.norm(row)
    column = np.cross(normal, row)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    return StackGeometry(
        positions_Z3=positions[order],
        along_mm_Z=along[order],
        row_step=row * spacings[:, 1].mean(),
        column_step=column * spacings[:, 0].mean(),
        order_Z=order,
    )


def _decode(path: Path, what: str) -> np.ndarray:
    """Pixels of one file after rescaling, shape (frames, rows, columns)."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(os.fspath(path))
    try:
        with silent_itk():
            image = reader.Execute()
    except RuntimeError:  # its text holds the path
        raise RejectedVolume(
            f"{what} cannot be decoded: truncated, damaged, or a compression that GDCM does not read"
        ) from None
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise RejectedVolume(f"{what}: RGB pixels")
    pixels = sitk.GetArrayFromImage(image)
    return pixels if pixels.ndim == 3 else pixels[None]


def _rounded(pixels: np.ndarray, *, whole: bool) -> np.ndarray:
    if not whole:
        return pixels.astype(np.float32)
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(pixels), limits.min, limits.max).astype(np.int16)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} × {shape[1]}"
