from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_voco.pretrain.discover import VolumeSource
from nnunetv2_voco.pretrain.read import read_volume
from tests.pretrain.dicom_factory import (
    slice_positions,
)
from tests.pretrain.raw_images import (
    assert_is_ramp,
    body_array,
    file_source,
    ramp,
    read,
    reason,
    write_array,
    write_ramp,
)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_formats_and_types_read_the_same(tmp_path: Path, ending: str, dtype: type) -> None:
    body = body_array()
    write_array(tmp_path / f"a{ending}", body.astype(dtype), useCompression=True)
    volume = read(tmp_path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(volume.image), body.clip(-1024))
    assert volume.image.GetSpacing() == pytest.approx((2, 2, 3))


def test_a_plain_file_named_gz_reads(tmp_path: Path) -> None:
    write_array(tmp_path / "a.nii", body_array().astype(np.int16))
    (tmp_path / "a.nii").rename(tmp_path / "a.nii.gz")
    assert read(tmp_path).image.GetSize() == (40, 40, 24)


def test_directions_are_kept(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(body_array().astype(np.int16))
    image.SetDirection([0, 0, 1, -1, 0, 0, 0, -1, 0])
    image.SetOrigin([1, 2, 3])
    image.SetSpacing([1.5, 1.5, 2])
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    read_image = read(tmp_path).image
    assert read_image.GetDirection() == pytest.approx(image.GetDirection())
    assert read_image.GetOrigin() == pytest.approx(image.GetOrigin())


SHEARED = np.array([[2.0, 0.0, 0.3], [0.0, 2.0, 0.9], [0.0, 0.0, 3.0]])


def write_sheared(path: Path, axes: np.ndarray = SHEARED) -> VolumeSource:
    """Write the ramp with the given axes (steps in LPS as columns) as NIfTI, through nibabel."""
    index = np.stack(np.meshgrid(np.arange(40), np.arange(36), np.arange(24), indexing="ij"), axis=-1)
    origin = np.array([-40.0, -30.0, 0.0])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.diag([-1, -1, 1]) @ axes, np.diag([-1, -1, 1]) @ origin
    image = nibabel.Nifti1Image(np.rint(ramp(index @ axes.T + origin)).astype(np.int16), affine)
    image.header.set_qform(None, code=0)
    nibabel.save(image, path)
    return file_source(path)


def test_sheared_nifti_is_straightened(tmp_path: Path) -> None:
    volume = read_volume(write_sheared(tmp_path / "a.nii.gz"))
    assert len(volume.mended) == 1
    assert volume.mended[0].startswith("shear of 16.")
    assert_is_ramp(volume.image, tolerance=1.1, least_share=0.3)


def test_axes_off_by_rounding_are_made_perpendicular_without_resampling(tmp_path: Path) -> None:
    axes = np.diag([2.0, 2.0, 3.0]) + 1e-3 * np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    volume = read_volume(write_sheared(tmp_path / "a.nii.gz", axes))
    assert not volume.mended
    assert_is_ramp(volume.image, tolerance=1.1)


def test_sheared_metaimage_and_nrrd_are_straightened(tmp_path: Path) -> None:
    straight = write_array(tmp_path / "a.mha", body_array().clip(-1024).astype(np.int16)).files[0]
    content = straight.read_bytes().replace(
        b"TransformMatrix = 1 0 0 0 1 0 0 0 1", b"TransformMatrix = 1 0 0 0 1 0 0 .3 1"
    )
    straight.write_bytes(content)
    assert read_volume(file_source(straight)).mended == ("shear of 16.7° corrected",)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.95, -1])
def test_truncated_files_are_refused(tmp_path: Path, ending: str, compress: bool, share: float) -> None:
    source = write_array(tmp_path / f"a{ending}", body_array().astype(np.int16), useCompression=compress)
    whole = source.files[0].read_bytes()
    source.files[0].write_bytes(whole[: int(share * len(whole))] if share > 0 else whole[:-1])
    assert "truncated" in reason(source)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_damaged_compression_is_refused(tmp_path: Path, ending: str) -> None:
    source = write_array(tmp_path / f"a{ending}", body_array().astype(np.int16), useCompression=True)
    content = bytearray(source.files[0].read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
    source.files[0].write_bytes(content)
    assert "damaged" in reason(source)


@pytest.mark.parametrize("ending", [".nhdr", ".mhd"])
def test_missing_data_files_are_named(tmp_path: Path, ending: str) -> None:
    source = write_array(tmp_path / f"a{ending}", body_array().astype(np.int16))
    (tmp_path / "a.raw").unlink()
    assert reason(source) == "its data file a.raw is missing"


def test_files_gone_since_discovery_are_refused(tmp_path: Path) -> None:
    source = write_array(tmp_path / "a.mha", body_array().astype(np.int16))
    source.files[0].unlink()
    assert reason(source) == "no such file or directory"


@pytest.mark.parametrize("spacing", [0.0, -2.0, np.nan])
def test_nifti_spacing_that_itk_would_replace_is_refused(tmp_path: Path, spacing: float) -> None:
    source = write_array(tmp_path / "a.nii", body_array().astype(np.int16))
    content = bytearray(source.files[0].read_bytes())
    content[88:92] = np.float32(spacing).tobytes()
    source.files[0].write_bytes(content)
    assert "in the header is not positive" in reason(source)


def test_absurd_spacing_is_refused(tmp_path: Path) -> None:
    body = body_array().astype(np.int16)
    assert "0.05 × 2 × 3 mm" in reason(write_array(tmp_path / "a.nrrd", body, (0.05, 2, 3)))
    assert "0.1 to 20.0 mm" in reason(write_array(tmp_path / "b.mha", body, (1, 1, 25)))


def test_small_volumes_are_refused(tmp_path: Path) -> None:
    body = body_array().astype(np.int16)
    assert "40 × 40 × 4 voxels" in reason(write_array(tmp_path / "a.nrrd", body[:4], (2, 2, 9)))
    assert "12 × 12 × 24 voxels" in reason(write_array(tmp_path / "b.nrrd", body[:, 4:16, 4:16], (3, 3, 3)))
    assert "80 × 80 × 12 mm" in reason(write_array(tmp_path / "c.nrrd", body, (2, 2, 0.5)))


def test_nothing_is_printed_about_damaged_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("a.mha", "b.nii.gz", "c.nrrd"):
        source = write_array(tmp_path / name, body_array().astype(np.int16), useCompression=True)
        source.files[0].write_bytes(source.files[0].read_bytes()[:-500])
        reason(source)
    paths = write_ramp(tmp_path / "d", slice_positions(20))
    paths[3].write_bytes(paths[3].read_bytes()[:-100])
    reason(VolumeSource(name="d", files=tuple(paths), file_format="dicom"))
    assert capfd.readouterr() == ("", "")
