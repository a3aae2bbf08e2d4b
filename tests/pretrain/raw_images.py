"""Images whose every voxel is known, as DICOM series and as files, and how a test reads them."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_voco.pretrain.discover import VolumeSource, discover
from nnunetv2_voco.pretrain.read import RawVolume, RejectedVolume, read_volume
from tests.pretrain.dicom_factory import (
    AXIAL,
    SECRETS,
    sample_slices,
    write_series,
)

SIZE, SPACING = (24, 32), (2.0, 2.5)  # rows × columns, mm


def ramp(points: np.ndarray) -> np.ndarray:
    """HU that linear interpolation reproduces exactly: air at one end, bone at the other."""
    return points @ np.array([9.0, 4.0, -2.0]) + 120


def write_ramp(folder: Path, positions: np.ndarray, orientation: tuple[float, ...] = AXIAL, **options) -> list[Path]:
    hu = sample_slices(ramp, positions, orientation, SIZE, SPACING)
    return write_series(folder, hu, positions=positions, orientation=orientation, spacing=SPACING, **options)


def read(folder: Path, **options) -> RawVolume:
    (source,) = discover([folder]).sources
    return read_volume(source, **options)


def points_of(image: sitk.Image) -> np.ndarray:
    """Physical position of every voxel, shape (z, y, x, 3)."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in image.GetSize()], indexing="ij"), axis=-1)
    axes = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    return (index @ axes.T + np.array(image.GetOrigin())).transpose(2, 1, 0, 3)


def assert_is_ramp(image: sitk.Image, *, tolerance: float = 0.51, least_share: float = 1.0) -> None:
    """Check values against the function at the voxels' positions, where data reaches them."""
    values = sitk.GetArrayFromImage(image)
    inside = np.ones(values.shape, dtype=bool) if least_share == 1 else _eroded(values > -1024)
    assert inside.mean() >= least_share
    assert np.abs(values - ramp(points_of(image)))[inside].max() <= tolerance
    direction = np.reshape(image.GetDirection(), (3, 3))
    np.testing.assert_allclose(direction @ direction.T, np.eye(3), atol=1e-12)


def _eroded(mask: np.ndarray) -> np.ndarray:
    """Without the border, where the fill value is blended in, and the last rows of each slice."""
    result = np.zeros_like(mask)
    result[:, 2:-2, 2:-2] = np.logical_and.reduce(
        [np.roll(mask, s, (1, 2)) for s in [(2, 0), (-2, 0), (0, 2), (0, -2)]]
    )[:, 2:-2, 2:-2]
    return result


def body_array(shape: tuple[int, int, int] = (24, 40, 40)) -> np.ndarray:
    """HU (z, y, x) of a noisy block of tissue, fat and bone in air."""
    rng = np.random.default_rng(7)
    hu = np.full(shape, -1000.0)
    hu[:, 8:-8, 8:-8] = 50
    hu[:, 8:12, 8:-8] = -100
    hu[:, 18:22, 18:22] = 500
    return np.rint(hu + rng.normal(0, 15, shape))


def file_source(path: Path) -> VolumeSource:
    return VolumeSource(
        name=path.name,
        files=(path,),
        file_format={"nii": "nifti", "gz": "nifti", "nrrd": "nrrd", "nhdr": "nrrd"}.get(path.suffix[1:], "metaimage"),
    )


def write_array(
    path: Path, values: np.ndarray, spacing: tuple[float, float, float] = (2, 2, 3), **options
) -> VolumeSource:
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path), **options)
    return file_source(path)


def reason(source: VolumeSource, **options) -> str:
    with pytest.raises(RejectedVolume) as caught:
        read_volume(source, **options)
    folder = str(source.files[0].parent)
    assert folder not in str(caught.value)
    assert not any(secret in str(caught.value) for secret in SECRETS)
    return str(caught.value)
