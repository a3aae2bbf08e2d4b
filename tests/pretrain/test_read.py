import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_voco.pretrain.discover import VolumeSource, discover
from nnunetv2_voco.pretrain.read import RawVolume, RejectedVolume, read_volume
from tests.pretrain.dicom_factory import (
    AXIAL,
    SECRETS,
    sample_slices,
    slice_positions,
    tilted_orientation,
    write_enhanced,
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


# DICOM geometry, against a function that is known everywhere


def test_a_plain_series_reads_as_what_was_written(tmp_path: Path) -> None:
    write_ramp(tmp_path, slice_positions(20))
    volume = read(tmp_path)
    assert volume.image.GetPixelID() == sitk.sitkInt16
    assert volume.image.GetSize() == (32, 24, 20)
    assert volume.image.GetSpacing() == (2.5, 2.0, 3.0)
    assert not volume.mended
    assert_is_ramp(volume.image)


def test_compressed_slices_and_missing_preambles_read_the_same(tmp_path: Path) -> None:
    write_ramp(tmp_path / "rle", slice_positions(20), compress=True)
    write_ramp(tmp_path / "old", slice_positions(20), preamble=False)
    assert_is_ramp(read(tmp_path / "rle").image)
    assert_is_ramp(read(tmp_path / "old").image)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1), (-1, 0, 0, 0, -1, 0)])
def test_coronal_sagittal_and_turned_slices_keep_their_place(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    normal = np.cross(orientation[:3], orientation[3:])
    start = -np.array(orientation[:3]) * 40 - np.array(orientation[3:]) * 20
    positions = start + np.arange(20)[:, None] * 3.0 * normal
    write_ramp(tmp_path, positions, orientation)
    assert_is_ramp(read(tmp_path).image)


@pytest.mark.parametrize("degrees", [-22.0, 6.0, 12.5, 30.0])
def test_gantry_tilt_is_corrected(tmp_path: Path, degrees: float) -> None:
    write_ramp(tmp_path, slice_positions(20), tilted_orientation(degrees))
    volume = read(tmp_path)
    assert volume.mended == (f"gantry tilt of {abs(degrees):.1f}° corrected",)
    assert volume.image.GetSpacing()[2] == pytest.approx(3 * np.cos(np.deg2rad(degrees)))
    assert_is_ramp(volume.image, tolerance=1.1, least_share=0.3)


def test_tilt_correction_loses_no_slice_content(tmp_path: Path) -> None:
    write_ramp(tmp_path, slice_positions(20), tilted_orientation(25))
    values = sitk.GetArrayFromImage(read(tmp_path).image)
    counts = (values > -1024).sum(axis=(1, 2))
    assert (counts >= (SIZE[0] - 1) * SIZE[1]).all()


def test_too_much_tilt_is_refused(tmp_path: Path) -> None:
    write_ramp(tmp_path, slice_positions(20), tilted_orientation(50))
    (source,) = discover([tmp_path]).sources
    assert reason(source) == "slices are tilted by 50.0°, at most 45° can be corrected"


@pytest.mark.parametrize("degrees", [0.0, 15.0])
def test_uneven_gaps_are_interpolated(tmp_path: Path, degrees: float) -> None:
    positions = slice_positions(24, step_mm=2.0)
    keep = np.delete(np.arange(24), [5, 14])  # two single slices are missing
    write_ramp(tmp_path, positions[keep], tilted_orientation(degrees))
    volume = read(tmp_path)
    scale = np.cos(np.deg2rad(degrees))
    assert volume.mended[0] == (
        f"slice gaps of {2 * scale:.1f} to {4 * scale:.1f} mm interpolated to {2 * scale:.1f} mm"
    )
    assert volume.image.GetSize()[2] == 24
    assert_is_ramp(volume.image, tolerance=1.1, least_share=0.3 if degrees else 1.0)


def test_two_slice_distances_in_one_series_are_evened(tmp_path: Path) -> None:
    z = np.concatenate([np.arange(14) * 2.5, 13 * 2.5 + np.arange(1, 9) * 5.0])
    positions = np.array([-40.0, -30.0, 0.0]) + z[:, None] * [0, 0, 1]
    write_ramp(tmp_path, positions)
    image = read(tmp_path).image
    assert image.GetSpacing()[2] == pytest.approx(2.5)
    assert image.GetSize()[2] == 30
    assert_is_ramp(image, tolerance=1.01)


def test_rounded_positions_are_not_called_uneven(tmp_path: Path) -> None:
    positions = slice_positions(60, step_mm=0.7031).round(1)
    write_ramp(tmp_path, positions)
    volume = read(tmp_path)
    assert not volume.mended
    assert volume.image.GetSpacing()[2] == pytest.approx(0.703, abs=0.002)


def test_large_gaps_are_refused_with_their_place(tmp_path: Path) -> None:
    positions = slice_positions(24)
    write_ramp(tmp_path, positions[np.delete(np.arange(24), [10, 11, 12])])
    (source,) = discover([tmp_path]).sources
    assert reason(source) == "slices are missing: a gap of 12.0 mm at 127.0 mm, the others are 3.0 mm"


def test_repeated_positions_are_refused(tmp_path: Path) -> None:
    positions = slice_positions(20)
    write_ramp(tmp_path, positions[[*range(20), 7]])
    (source,) = discover([tmp_path]).sources
    assert "share positions" in reason(source)


def test_slices_that_jump_sideways_are_refused(tmp_path: Path) -> None:
    positions = slice_positions(20)
    positions[10:, 0] += 8
    write_ramp(tmp_path, positions)
    (source,) = discover([tmp_path]).sources
    assert "shifted against each other" in reason(source)


def test_each_slice_has_its_own_rescale_slope(tmp_path: Path) -> None:
    write_ramp(tmp_path, slice_positions(20), slope=[1.0, 0.5, 1.25, 2.0] * 5)
    assert_is_ramp(read(tmp_path).image, tolerance=1.51)


def test_multi_frame_files_are_put_in_order(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(20)
    positions = slice_positions(20)
    hu = sample_slices(ramp, positions, AXIAL, SIZE, (2.0, 2.0))
    write_enhanced(tmp_path / "enhanced.dcm", hu[order], positions[order])
    volume = read(tmp_path)
    assert volume.image.GetSpacing() == pytest.approx((2, 2, 3))
    assert_is_ramp(volume.image)


def test_slices_changed_after_discovery_are_refused(tmp_path: Path) -> None:
    paths = write_ramp(tmp_path, slice_positions(20))
    (source,) = discover([tmp_path]).sources
    whole = paths[7].read_bytes()
    paths[7].write_bytes(whole[:-200])
    assert "slice 8 of 20 cannot be decoded" in reason(source)
    paths[7].unlink()
    assert "1 of 20 slices cannot be read" in reason(source)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"ImageOrientationPatient": list(tilted_orientation(10))}, "different orientation"),
        ({"PixelSpacing": [1.0, 1.0]}, "pixel spacings of 1 to 2 mm are mixed"),
        ({"ImagePositionPatient": None}, "1 of 20 slices have no position"),
    ],
)
def test_mixed_slices_are_refused(tmp_path: Path, other: dict, expected: str) -> None:
    paths = write_ramp(tmp_path, slice_positions(20), each=lambda i: other if i == 4 else {})
    assert expected in reason(VolumeSource(name="x", files=tuple(paths), file_format="dicom"))


def test_sizes_that_differ_within_a_series_are_refused(tmp_path: Path) -> None:
    paths = write_ramp(tmp_path, slice_positions(20))
    wide = write_series(tmp_path / "w", np.zeros((1, 24, 40)), positions=slice_positions(21)[20:])
    assert "are mixed" in reason(VolumeSource(name="x", files=(*paths, *wide), file_format="dicom"))


def test_no_metadata_and_nothing_of_the_patient_is_returned(tmp_path: Path) -> None:
    write_ramp(tmp_path, slice_positions(20), tilted_orientation(10))
    volume = read(tmp_path)
    assert volume.image.GetMetaDataKeys() == ()
    assert not any(secret in repr(volume) + str(volume.image) for secret in SECRETS)


# Single-file formats


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


# Values


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


def test_nothing_is_printed_about_damaged_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("a.mha", "b.nii.gz", "c.nrrd"):
        source = write_array(tmp_path / name, body_array().astype(np.int16), useCompression=True)
        source.files[0].write_bytes(source.files[0].read_bytes()[:-500])
        reason(source)
    paths = write_ramp(tmp_path / "d", slice_positions(20))
    paths[3].write_bytes(paths[3].read_bytes()[:-100])
    reason(VolumeSource(name="d", files=tuple(paths), file_format="dicom"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["abdomen_crlm_1004.nii.gz", "chestcrop_ibsi_pat2_dicom"])
def test_real_cts_are_accepted(shared_ct: Path, name: str) -> None:
    (source,) = discover([shared_ct / name]).sources
    volume = read_volume(source)
    assert volume.image.GetPixelID() == sitk.sitkInt16
    assert all("padding" in text for text in volume.mended)
