from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_voco.pretrain.discover import VolumeSource, discover
from tests.pretrain.dicom_factory import (
    AXIAL,
    SECRETS,
    sample_slices,
    slice_positions,
    tilted_orientation,
    write_enhanced,
    write_series,
)
from tests.pretrain.raw_images import (
    SIZE,
    assert_is_ramp,
    ramp,
    read,
    reason,
    write_ramp,
)


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
