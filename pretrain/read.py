"""Read one volume and check it: what comes out is 3D, straight, evenly spaced and, for CT, in Hounsfield units."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunetv2_voco.pretrain.dicom_stack import line_through, read_geometry, read_pixels
from nnunetv2_voco.pretrain.discover import VolumeSource
from nnunetv2_voco.pretrain.geometry import check_spacing, interpolate_slices, slice_weights, straighten
from nnunetv2_voco.pretrain.headers import data_files, image_format, nifti_header, silent_itk, text_fields
from nnunetv2_voco.pretrain.hounsfield import AIR_HU, require_contrast, require_finite, to_hounsfield
from nnunetv2_voco.pretrain.integrity import check_data_complete
from nnunetv2_voco.pretrain.rejection import RejectedVolume

__all__ = ["RawVolume", "RejectedVolume", "read_volume"]

LEAST_SIZE_VOX = (5, 16, 16)  # of the shortest axis, which is usually across the slices, and the others
LEAST_EXTENT_MM = 30.0
_LPS_OF_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class RawVolume:
    """A volume that passed all checks.

    Attributes:
        image: 3D; int16 in HU, or float32 where Hounsfield units are not asked for; orthonormal direction cosines,
            even spacing. It carries no metadata.
        mended: What was repaired, in words.
        resampled: Whether voxels moved by it, so that their indices are not those of the file.
    """

    image: sitk.Image
    mended: tuple[str, ...]
    resampled: bool = False


def read_volume(source: VolumeSource, *, hounsfield: bool = True) -> RawVolume:
    """Read a volume, mend what can be mended safely, and refuse the rest.

    Mended are padding below air, values stored as HU + 1024, moderate slice gaps, tilted gantries and sheared axes.
    Nothing else is resampled or turned.

    Args:
        source: From `discover`.
        hounsfield: Whether the values have to be Hounsfield units; False reads any modality as float32.

    Raises:
        RejectedVolume: With the reason in words, without a path and without anything of a DICOM header but geometry.
    """
    read = _read_dicom if source.file_format == "dicom" else _read_file
    try:
        return read(source.files, hounsfield)
    except OSError as error:
        raise RejectedVolume((error.strerror or "the file cannot be read").lower()) from None
    except MemoryError:
        raise RejectedVolume("it does not fit into memory") from None


def _read_dicom(files: tuple[Path, ...], hounsfield: bool) -> RawVolume:
    geometry = read_geometry(files)
    row_step, column_step = geometry.row_step, geometry.column_step
    if len(geometry.along_mm_Z) < LEAST_SIZE_VOX[0]:
        raise RejectedVolume(f"only {len(geometry.along_mm_Z)} slices, at least {LEAST_SIZE_VOX[0]} are needed")
    weights, gaps_mended = slice_weights(geometry.along_mm_Z)
    start, per_mm = line_through(geometry.positions_Z3, geometry.along_mm_Z)
    along = np.interp(weights, np.arange(len(geometry.along_mm_Z)), geometry.along_mm_Z)
    step_mm = (along[-1] - along[0]) / (len(along) - 1)
    check_spacing(np.array([np.linalg.norm(row_step), np.linalg.norm(column_step), step_mm]))

    values, mended = _checked_values(read_pixels(files, geometry, whole=hounsfield), hounsfield)
    if gaps_mended:
        values = interpolate_slices(values, weights)
        mended += (gaps_mended,)
    axes = np.stack([row_step, column_step, per_mm * step_mm], axis=1)
    raw = _straightened(values, start, axes, mended, hounsfield, "gantry tilt")
    return replace(raw, resampled=raw.resampled or bool(gaps_mended))


def _read_file(files: tuple[Path, ...], hounsfield: bool) -> RawVolume:
    path = files[0]
    for companion in data_files(path):
        if not companion.is_file():
            raise RejectedVolume(f"its data file {companion.name} is missing")
    _check_header_spacing(path)
    check_data_complete(path)
    values, origin, axes = _load(path)
    check_spacing(np.linalg.norm(axes, axis=0))
    values, mended = _checked_values(values, hounsfield)
    return _straightened(values, origin, axes, mended, hounsfield, "shear")


def _checked_values(values: np.ndarray, hounsfield: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    """The values as int16 HU or float32, and what was mended."""
    require_finite(values)
    if hounsfield:
        return to_hounsfield(values)
    require_contrast(values)
    return values.astype(np.float32), ()


def _straightened(
    values: np.ndarray,
    origin: np.ndarray,
    axes: np.ndarray,
    mended: tuple[str, ...],
    hounsfield: bool,
    what: str,
) -> RawVolume:
    _check_size(values.shape, np.linalg.norm(axes, axis=0), hounsfield)
    fill = AIR_HU if hounsfield else float(values.min())
    image, angle = straighten(values, origin, axes, fill=fill)
    if angle:
        mended += (f"{what} of {angle:.1f}° corrected",)
    return RawVolume(image=image, mended=mended, resampled=bool(angle))


def _check_size(shape_zyx: tuple[int, ...], spacing_xyz: np.ndarray, hounsfield: bool) -> None:
    size = shape_zyx[::-1]
    text = " × ".join(str(n) for n in size)
    if any(n < least for n, least in zip(sorted(size), LEAST_SIZE_VOX, strict=True)):
        needed = " × ".join(str(n) for n in reversed(LEAST_SIZE_VOX))
        raise RejectedVolume(f"too small: {text} voxels, at least {needed} are needed")
    extent = np.array(size) * spacing_xyz
    if hounsfield and extent.min() < LEAST_EXTENT_MM:
        text = " × ".join(f"{e:.0f}" for e in extent)
        raise RejectedVolume(f"too small: {text} mm, at least {LEAST_EXTENT_MM:.0f} mm are needed along each axis")


def _check_header_spacing(path: Path) -> None:
    """Refuse spacings of zero, below zero or NaN, in place of which ITK would put 1 mm or the absolute value."""
    kind = image_format(path.name)
    spacing: list[float] = []
    if kind == "nifti":
        spacing = [float(s) for s in nifti_header(path)["pixdim"][1:4]]
    elif kind == "metaimage":
        fields = text_fields(path)
        text = fields.get("elementspacing", fields.get("elementsize", ""))
        try:
            spacing = [float(s) for s in text.split()][:3]
        except ValueError:
            raise RejectedVolume("spacing in the header is no number") from None
    if not all(s > 0 and np.isfinite(s) for s in spacing):
        text = " × ".join(f"{s:.4g}" for s in spacing)
        raise RejectedVolume(f"spacing of {text} mm in the header is not positive; correct it or leave the file out")


def _load(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values (z, y, x), origin and axes (steps in mm as columns) of a single-file image, in LPS."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(os.fspath(path))
    try:
        with silent_itk():
            image = reader.Execute()
    except RuntimeError as error:  # its text holds the path: only looked at, never shown
        if "orthonormal" in str(error):
            return _load_sheared_nifti(path)
        raise RejectedVolume("it cannot be decoded: truncated, damaged, or a variant SimpleITK does not read") from None
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        image = image[(slice(None),) * (image.GetDimension() - 1) + (0,)]
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() > 1:
        raise RejectedVolume(f"not a 3D image of one value per voxel but {_description(image)}")
    spacing, direction = np.array(image.GetSpacing()), np.reshape(image.GetDirection(), (3, 3))
    return sitk.GetArrayFromImage(image), np.array(image.GetOrigin()), direction * spacing


def _load_sheared_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read with nibabel what ITK refuses, and turn it from RAS to LPS."""
    import nibabel

    header = nifti_header(path)
    try:
        image: Any = nibabel.load(path)
        values = np.asanyarray(image.dataobj)
    except Exception:  # nibabel has many of its own, with the path in their text
        raise RejectedVolume("its axes are not perpendicular, and nibabel cannot read it either") from None
    affine = np.asarray(image.affine, dtype=float)
    unit_mm = {1: 1000.0, 3: 1e-3}.get(int(header["xyzt_units"]) & 7, 1.0)  # metres, micrometres
    values = values.reshape(values.shape[:3]).T
    return values, _LPS_OF_RAS @ affine[:3, 3] * unit_mm, _LPS_OF_RAS @ affine[:3, :3] * unit_mm


def _description(image: sitk.Image) -> str:
    size = " × ".join(str(n) for n in image.GetSize())
    return f"{image.GetDimension()}D, {size}, {image.GetNumberOfComponentsPerPixel()} values per voxel"
