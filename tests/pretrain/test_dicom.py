from pathlib import Path

import numpy as np
import pytest

from nnunetv2_voco.pretrain.dicom import read_headers
from nnunetv2_voco.pretrain.dicom_series import DicomGroup, group_series
from tests.pretrain.dicom_factory import (
    AXIAL,
    SECRETS,
    add_pixels,
    base_dataset,
    save,
    slice_positions,
    tilted_orientation,
    write_enhanced,
    write_series,
)

BLANK = np.zeros((8, 16, 16))


def groups_of(folder: Path, modality: str = "CT") -> tuple[list[DicomGroup], list[DicomGroup]]:
    """Volumes and skipped groups of all files below a folder."""
    headers, failed = read_headers(sorted(p for p in folder.rglob("*") if p.is_file()))
    assert not failed
    groups = group_series(headers, modality=modality)
    return [g for g in groups if g.reason is None], [g for g in groups if g.reason]


def test_slices_are_ordered_along_the_normal(tmp_path: Path) -> None:
    paths = write_series(tmp_path, BLANK)
    (volume,), skipped = groups_of(tmp_path)
    assert list(volume.files) == paths
    assert not skipped


def test_order_follows_the_normal_of_tilted_slices(tmp_path: Path) -> None:
    positions = slice_positions(8) * [1, 1, -1]
    paths = write_series(tmp_path, BLANK, positions=positions, orientation=tilted_orientation(20))
    (volume,), _ = groups_of(tmp_path)
    assert list(volume.files) == paths[::-1]


@pytest.mark.parametrize(("name", "preamble"), [("IM{:d}", True), ("{:d}.IMA", False), ("1.2.3.{:d}", True)])
def test_file_endings_do_not_matter(tmp_path: Path, name: str, preamble: bool) -> None:
    write_series(tmp_path, BLANK, name=name, preamble=preamble)
    (volume,), _ = groups_of(tmp_path)
    assert len(volume.files) == 8


def test_files_without_magic_and_ending_are_no_dicom(tmp_path: Path) -> None:
    (tmp_path / "notes").write_bytes(b"x" * 500)
    (tmp_path / "short").write_bytes(b"x")
    assert read_headers(sorted(tmp_path.iterdir())) == ([], [])


def test_damaged_dicom_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"no dicom at all" * 20)
    (tmp_path / "b.dcm").write_bytes(b"")
    (tmp_path / "c").write_bytes(bytes(128) + b"DICM" + b"\xff" * 90)
    headers, failed = read_headers(sorted(tmp_path.iterdir()))
    assert not headers
    assert [path.name for path, _ in failed] == ["a.dcm", "b.dcm", "c"]
    assert all("header cannot be read" in reason for _, reason in failed)


def test_series_in_one_folder_are_told_apart(tmp_path: Path) -> None:
    first = write_series(tmp_path, BLANK, name="a{:d}", SeriesNumber=2)
    second = write_series(tmp_path, BLANK[:6], name="b{:d}", SeriesNumber=1)
    volumes, _ = groups_of(tmp_path)
    assert [list(v.files) for v in volumes] == [second, first]


def test_parts_of_a_series_in_sub_folders_are_merged(tmp_path: Path) -> None:
    uids = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2"}
    positions = slice_positions(16)
    write_series(tmp_path / "a", BLANK, positions=positions[:8], **uids)
    write_series(tmp_path / "b", BLANK, positions=positions[8:], **uids)
    (volume,), _ = groups_of(tmp_path)
    assert volume.folder == tmp_path
    assert len(volume.files) == 16


@pytest.mark.parametrize("shift_mm", [0.0, 1.5, 400.0])
def test_sub_folders_that_do_not_continue_each_other_stay_apart(tmp_path: Path, shift_mm: float) -> None:
    uids = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2"}
    positions = slice_positions(8)
    write_series(tmp_path / "a", BLANK, positions=positions, **uids)
    write_series(tmp_path / "b", BLANK, positions=positions + [0, 1.0 * (shift_mm == 1.5), shift_mm], **uids)
    volumes, _ = groups_of(tmp_path)
    expected = 1 if shift_mm == 1.5 else 2  # evenly interleaved slices are one volume
    assert len(volumes) == expected


def test_series_without_uids_are_not_merged_across_folders(tmp_path: Path) -> None:
    uids = {"SeriesInstanceUID": None, "StudyInstanceUID": None}
    positions = slice_positions(16)
    write_series(tmp_path / "a", BLANK, positions=positions[:8], **uids)
    write_series(tmp_path / "b", BLANK, positions=positions[8:], **uids)
    volumes, _ = groups_of(tmp_path)
    assert len(volumes) == 2


@pytest.mark.parametrize("tag", ["AcquisitionNumber", "TemporalPositionIdentifier", "TriggerTime", "KVP"])
def test_phases_of_one_series_are_split(tmp_path: Path, tag: str) -> None:
    positions = np.tile(slice_positions(8), (2, 1))
    paths = write_series(tmp_path, np.zeros((16, 16, 16)), positions=positions, each=lambda i: {tag: 1 + i // 8})
    volumes, _ = groups_of(tmp_path)
    assert [list(v.files) for v in volumes] == [paths[:8], paths[8:]]


def test_phases_without_a_tag_are_split_by_instance_number(tmp_path: Path) -> None:
    positions = np.repeat(slice_positions(8), 2, axis=0)
    paths = write_series(tmp_path, np.zeros((16, 16, 16)), positions=positions)
    volumes, _ = groups_of(tmp_path)
    assert [list(v.files) for v in volumes] == [paths[::2], paths[1::2]]


def test_acquisitions_side_by_side_are_one_volume(tmp_path: Path) -> None:
    positions = slice_positions(16)
    positions[8:, 2] += 2  # a gap of 5 mm between them
    write_series(tmp_path, np.zeros((16, 16, 16)), positions=positions, each=lambda i: {"AcquisitionNumber": i // 8})
    (volume,), _ = groups_of(tmp_path)
    assert len(volume.files) == 16


def test_copies_of_slices_are_dropped(tmp_path: Path) -> None:
    paths = write_series(tmp_path, BLANK)
    (tmp_path / "copy.dcm").write_bytes(paths[3].read_bytes())
    (volume,), _ = groups_of(tmp_path)
    assert len(volume.files) == 8


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Modality": "MR"}, "DICOM modality MR"),
        ({"Modality": "RTDOSE"}, "DICOM modality RTDOSE"),
        ({"Modality": ""}, "DICOM without a modality"),
        ({"Modality": "SECRETNAME"}, "DICOM of an unknown modality"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, "projection"),
        ({"ImagePositionPatient": None}, "DICOM without slice position"),
        ({"ImageOrientationPatient": None}, "DICOM without slice orientation"),
        ({"PixelSpacing": None}, "DICOM without pixel spacing"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "spans no plane"),
    ],
)
def test_what_is_no_ct_is_skipped_once_per_series(tmp_path: Path, tags: dict, reason: str) -> None:
    write_series(tmp_path, BLANK, **tags)
    volumes, (skipped,) = groups_of(tmp_path)
    assert not volumes
    assert reason in (skipped.reason or "")
    assert len(skipped.files) == 8


def test_structures_and_colour_captures_are_skipped(tmp_path: Path) -> None:
    save(base_dataset("RTSTRUCT"), tmp_path / "rs.dcm")
    capture = base_dataset()
    add_pixels(capture, np.zeros((16, 16), dtype=np.int16))
    capture.SamplesPerPixel = 3
    save(capture, tmp_path / "sc.dcm")
    volumes, skipped = groups_of(tmp_path)
    assert not volumes
    assert [s.reason for s in skipped] == ["DICOM modality RTSTRUCT", "RGB image"]


def test_series_of_few_slices_are_skipped(tmp_path: Path) -> None:
    write_series(tmp_path / "four", BLANK[:4])
    write_series(tmp_path / "one", BLANK[:1])
    volumes, skipped = groups_of(tmp_path)
    assert not volumes
    assert [s.reason for s in skipped] == ["DICOM series of only 4 slices", "DICOM series of only 1 slice"]


def test_a_scout_that_does_not_say_so_is_set_apart_by_its_plane(tmp_path: Path) -> None:
    uid = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2"}
    paths = write_series(tmp_path, BLANK, **uid)
    coronal = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    write_series(tmp_path, BLANK[:1], name="scout{:d}", orientation=coronal, **uid)
    (volume,), (skipped,) = groups_of(tmp_path)
    assert list(volume.files) == paths
    assert skipped.reason == "DICOM series of only 1 slice"


def test_a_multi_frame_file_is_a_volume_by_itself(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "enhanced.dcm", BLANK, slice_positions(8))
    (volume,), _ = groups_of(tmp_path)
    assert volume.files == (path,)


def test_other_modalities_are_found_when_sought(tmp_path: Path) -> None:
    write_series(tmp_path / "mr", BLANK, Modality="MR")
    write_series(tmp_path / "ct", BLANK)
    save(base_dataset("SEG"), tmp_path / "seg.dcm")
    assert [v.folder.name for v in groups_of(tmp_path, "MR")[0]] == ["mr"]
    assert [v.folder.name for v in groups_of(tmp_path, "any")[0]] == ["ct", "mr"]


def test_headers_show_no_patient_and_no_uid(tmp_path: Path) -> None:
    write_series(tmp_path, BLANK, orientation=AXIAL)
    headers, _ = read_headers(sorted(tmp_path.iterdir()))
    assert not any(secret in repr(headers).replace(str(tmp_path), "") for secret in SECRETS)


def test_invalid_values_in_a_header_are_a_reason_and_no_crash(tmp_path: Path) -> None:
    path = write_series(tmp_path, BLANK)[0]
    content = path.read_bytes()
    at = content.index(b"\x28\x00\x30\x00DS")  # pixel spacing
    path.write_bytes(content[: at + 8] + b"ab" + content[at + 10 :])
    headers, failed = read_headers(sorted(tmp_path.iterdir()))
    assert len(headers) == 7
    assert failed == [(path, "header cannot be read (no or damaged DICOM)")]
