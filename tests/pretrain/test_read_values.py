import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_voco.pretrain.discover import discover
from nnunetv2_voco.pretrain.read import read_volume
from tests.pretrain.raw_images import (
    body_array,
    read,
    reason,
    write_array,
)


def mended(tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]) -> tuple[str, ...]:
    """Read the body after a change; it has to come back as it was, in int16."""
    body = body_array()
    volume = read_volume(write_array(tmp_path / "a.nrrd", change(body)))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(volume.image), body.clip(-1024))
    return volume.mended


def test_padding_becomes_air(tmp_path: Path) -> None:
    body = body_array().clip(-1024)
    body[:, :5] = -3024
    volume = read_volume(write_array(tmp_path / "a.nrrd", body.astype(np.int16)))
    assert volume.mended == ("padding of -3024 set to -1024 (12 % of voxels)",)
    assert sitk.GetArrayFromImage(volume.image).min() == -1024


def test_hu_plus_1024_is_shifted(tmp_path: Path) -> None:
    body = body_array().clip(-1024)
    for dtype in (np.uint16, np.int32, np.float32):
        assert mended(tmp_path, lambda _, d=dtype: (body + 1024).astype(d)) == (
            "values look like HU + 1024: 1024 subtracted",
        )


def test_wrapped_unsigned_values_are_set_right(tmp_path: Path) -> None:
    assert "unsigned 16-bit" in mended(tmp_path, lambda body: body.astype(np.int16).view(np.uint16))[0]


def test_fractions_are_rounded_and_metal_is_clipped_to_16_bits(tmp_path: Path) -> None:
    body = body_array() + 0.4
    body[5, 20, 20] = 70000
    values = sitk.GetArrayFromImage(read_volume(write_array(tmp_path / "a.nrrd", body.astype(np.float64))).image)
    assert values[5, 20, 20] == 32767
    assert values[0, 0, 0] == np.rint(body[0, 0, 0])


def test_nan_is_refused_with_its_share(tmp_path: Path) -> None:
    body = body_array()
    body[0, 0, :40] = np.nan
    body[1, 0, 0] = np.inf
    assert reason(write_array(tmp_path / "a.nrrd", body)) == "41 voxels (0.11 %) are NaN or infinite"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.zeros((24, 40, 40), np.int16), "every voxel has the value 0"),
        ((body_array() > 0).astype(np.int16) * 3, "values of 0 to 3 only: a label map"),
        ((body_array() > 0).astype(np.int16) * 1000, "only 2 different values: a label map"),
        (((body_array() + 1100) / 8).clip(0, 255).round().astype(np.int16), "a label map or an 8-bit image"),
        (np.random.default_rng(0).gamma(2, 300, (24, 40, 40)).astype(np.float32), "no value is below 0"),
        (np.random.default_rng(0).gamma(2, 300, (24, 40, 40)) - 5, "below -30 HU"),
        (np.random.default_rng(0).normal(0, 1, (24, 40, 40)).astype(np.float32), "not HU"),
        (np.random.default_rng(0).normal(-1000, 20, (24, 40, 40)).astype(np.int16), "no body"),
        (np.random.default_rng(0).normal(20000, 9000, (24, 40, 40)).astype(np.int16), "not HU or no body"),
    ],
)
def test_what_is_not_hu_is_refused(tmp_path: Path, values: np.ndarray, expected: str) -> None:
    assert expected in reason(write_array(tmp_path / "a.nrrd", values))


def test_a_crop_without_air_is_accepted(tmp_path: Path) -> None:
    hu = np.random.default_rng(0).normal(40, 20, (24, 40, 40))
    hu[:, :8] -= 140  # fat
    assert not read_volume(write_array(tmp_path / "a.nrrd", hu.astype(np.int16))).mended


def test_a_limb_in_a_wide_field_of_view_is_accepted(tmp_path: Path) -> None:
    hu = np.random.default_rng(0).normal(-1000, 15, (24, 100, 100))
    hu[:, 40:52, 40:52] += 1050
    hu[:, 40:42, 40:52] -= 150
    read_volume(write_array(tmp_path / "a.nrrd", hu.astype(np.int16)))


def test_other_modalities_are_read_as_they_are(tmp_path: Path) -> None:
    values = np.random.default_rng(0).gamma(2, 300, (24, 40, 40)).astype(np.float32)
    volume = read_volume(write_array(tmp_path / "a.nrrd", values), hounsfield=False)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(volume.image), values)
    assert volume.image.GetPixelID() == sitk.sitkFloat32
    read_volume(write_array(tmp_path / "b.nii.gz", values.clip(0, 255).astype(np.uint8)), hounsfield=False)


def test_scaled_8_bit_nifti_is_read_in_hu(tmp_path: Path) -> None:
    body = body_array().clip(-1024, 1000)
    image = nibabel.Nifti1Image(np.rint((body.T + 1024) / 8).astype(np.uint8), np.diag([2, 2, 3, 1]))
    image.header.set_slope_inter(8, -1024)
    with gzip.open(tmp_path / "a.nii.gz", "wb") as file:
        image.header["magic"], image.header["vox_offset"] = b"n+1", 352
        file.write(image.header.binaryblock + bytes(4) + np.asarray(image.dataobj).tobytes(order="F"))
    volume = read(tmp_path)
    assert np.abs(sitk.GetArrayFromImage(volume.image) - body).max() <= 4


@pytest.mark.parametrize("name", ["abdomen_crlm_1004.nii.gz", "chestcrop_ibsi_pat2_dicom"])
def test_real_cts_are_accepted(shared_ct: Path, name: str) -> None:
    (source,) = discover([shared_ct / name]).sources
    volume = read_volume(source)
    assert volume.image.GetPixelID() == sitk.sitkInt16
    assert all("padding" in text for text in volume.mended)
