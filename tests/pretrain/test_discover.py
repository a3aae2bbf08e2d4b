import gzip
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_voco.pretrain.discover import Discovery, discover
from tests.pretrain.dicom_factory import SECRETS, write_series
from tests.pretrain.discovered import names, reasons, write

BLANK = np.zeros((8, 16, 16))


def test_all_formats_are_found_at_any_depth(tmp_path: Path) -> None:
    folder = tmp_path / "ct"
    for name in ("a.nii", "b/b.nii.gz", "b/c/d.nrrd", "e.nhdr", "f.mha", "g/g.mhd", "h/UPPER.NRRD"):
        write(folder / name)
    write_series(folder / "pat 1", BLANK, name="IM{:d}")
    found = discover([folder])
    assert names(found) == sorted(
        ["ct/a.nii", "ct/b/b.nii.gz", "ct/b/c/d.nrrd", "ct/e.nhdr", "ct/f.mha", "ct/g/g.mhd", "ct/h/UPPER.NRRD"]
        + ["ct/pat 1"]
    )
    formats = {source.name: source.file_format for source in found.sources}
    assert formats["ct/a.nii"] == "nifti"
    assert formats["ct/e.nhdr"] == "nrrd"
    assert formats["ct/g/g.mhd"] == "metaimage"
    assert formats["ct/pat 1"] == "dicom"
    assert not found.skipped


def test_real_cts_are_all_found(shared_ct: Path) -> None:
    found = discover([shared_ct])
    assert len(found.sources) == 13
    assert not found.skipped
    assert {s.name: len(s.files) for s in found.sources if s.file_format == "dicom"} == {
        "ct/chest_ts_example_dicom": 20,
        "ct/chestcrop_ibsi_pat1_dicom": 60,
        "ct/chestcrop_ibsi_pat2_dicom": 41,
    }


def test_several_series_of_a_folder_are_numbered(tmp_path: Path) -> None:
    folder = tmp_path / "ct"
    write_series(folder, BLANK, name="a{:d}", SeriesNumber=1)
    write_series(folder, BLANK[:6], name="b{:d}", SeriesNumber=2)
    found = discover([folder])
    assert [(s.name, len(s.files)) for s in found.sources] == [("ct#1", 8), ("ct#2", 6)]


def test_skipped_files_are_listed_with_their_reason(tmp_path: Path) -> None:
    folder = tmp_path / "ct"
    write(folder / "label.nii.gz", dtype=np.uint8)
    write(folder / "flat.nii.gz", shape=(16, 16))
    write(folder / "one_slice.nrrd", shape=(1, 16, 16))
    write(folder / "rgb.mha", shape=(8, 16, 16, 3), dtype=np.uint8, vector=True)
    write(folder / "dynamic.nrrd", shape=(4, 8, 16, 16))
    write(folder / "dynamic.nii.gz", shape=(4, 8, 16, 16))
    write(folder / "deformation.nii.gz", shape=(8, 16, 16, 3), dtype=np.float32, vector=True)
    write_series(folder / "mr", BLANK, Modality="MR")
    assert reasons(discover([folder])) == {
        "ct/label.nii.gz": "label map or 8-bit image (8-bit unsigned integer)",
        "ct/flat.nii.gz": "2D image",
        "ct/one_slice.nrrd": "2D image",
        "ct/rgb.mha": "RGB image",
        "ct/dynamic.nrrd": "4D image",
        "ct/dynamic.nii.gz": "4D image",
        "ct/deformation.nii.gz": "RGB image",
        "ct/mr": "DICOM modality MR (8 files)",
    }


def test_declared_labels_of_any_type_are_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "ct"
    content = bytearray(write(folder / "label.nii").read_bytes())
    content[68:70] = np.int16(1002).tobytes()  # NIfTI's intent code of labels
    (folder / "label.nii").write_bytes(content)
    write(folder / "Segmentation.seg.nrrd")
    found = discover([folder])
    assert set(reasons(found).values()) == {"label map (by its header)"}
    assert len(found.skipped) == 2


def test_4d_with_a_last_axis_of_one_is_a_volume(tmp_path: Path) -> None:
    for name in ("a.nrrd", "b.mha", "c.nii.gz"):
        write(tmp_path / "ct" / name, shape=(1, 8, 16, 16))
    assert len(discover([tmp_path / "ct"]).sources) == 3


def test_8_bit_images_are_volumes_where_ct_is_not_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "mr" / "a.nii.gz", dtype=np.uint8)
    assert len(discover([tmp_path / "mr"], modality="MR").sources) == 1


def test_unreadable_headers_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "ct"
    whole = write(folder / "ok.nrrd").read_bytes()
    (folder / "empty.nii.gz").touch()
    (folder / "empty.mha").touch()
    (folder / "garbage.nii.gz").write_bytes(b"garbage" * 100)
    (folder / "garbage.nrrd").write_bytes(b"garbage" * 100)
    (folder / "cut.nrrd").write_bytes(whole[:40])
    (folder / "cut.nii.gz").write_bytes(gzip.compress(np.random.default_rng(0).bytes(2000))[:80])
    (folder / "link.nii").symlink_to(folder / "gone.nii")
    write(folder / "detached.nhdr")
    write(folder / "detached.mhd")
    for data in folder.glob("detached.*raw*"):
        data.unlink()
    found = discover([folder])
    assert names(found) == ["ct/ok.nrrd"]
    assert len(found.skipped) == 9
    assert all(reason.startswith("header cannot be read (") for reason in reasons(found).values())
    assert "data file detached.raw is missing" in reasons(found)["ct/detached.mhd"]
    assert str(tmp_path) not in repr(found)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"NDims = 3", b"NDims =-3"),  # MetaIO crashes the process on it
        (b"DimSize = 16 16 8", b"DimSize = 16 - 8\n"),
        (b"DimSize = 16 16 8", b"DimSize = 16 16\n"),
        (b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 x 1"),
        (b"TransformMatrix = 1", b"TransformMatrix ="),
        (b"ElementType = MET_SHORT", b"ElementTypo = MET_SHORT"),
    ],
)
def test_damaged_metaimage_headers_never_reach_itk(tmp_path: Path, before: bytes, after: bytes, capfd) -> None:
    path = write(tmp_path / "ct" / "a.mha")
    assert before in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(before, after))
    assert "header cannot be read" in reasons(discover([tmp_path / "ct"]))["ct/a.mha"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("at", "value"), [(70, 45), (42, 0), (44, -5)])  # type, sizes along x and y
def test_nifti_of_an_unknown_type_or_without_voxels_is_listed(tmp_path: Path, at: int, value: int) -> None:
    path = write(tmp_path / "ct" / "a.nii")
    content = bytearray(path.read_bytes())
    content[at : at + 2] = np.int16(value).tobytes()
    path.write_bytes(content)
    assert reasons(discover([path])) == {"a.nii": "header cannot be read (this is no NIfTI header)"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_listed(tmp_path: Path) -> None:
    file = write(tmp_path / "ct" / "a.nii.gz")
    slices = write_series(tmp_path / "ct" / "series", BLANK)
    closed = tmp_path / "ct" / "closed"
    closed.mkdir(mode=0o000)
    file.chmod(0)
    slices[0].chmod(0)
    found = discover([tmp_path / "ct"])
    closed.chmod(0o700)
    assert reasons(found) == {
        "ct/a.nii.gz": "header cannot be read (permission denied)",
        "ct/closed": "folder cannot be listed (permission denied)",
        "ct/series": "header cannot be read (permission denied)",
    }
    assert [len(s.files) for s in found.sources] == [7]


def test_hidden_files_and_files_that_are_no_images_are_not_mentioned(tmp_path: Path) -> None:
    folder = tmp_path / "ct"
    for name in ("._a.nii.gz", ".hidden/a.nii.gz", "__MACOSX/a.nii.gz"):
        write(folder / name.replace("._a", "tmp"))
    (folder / "tmp.nii.gz").rename(folder / "._a.nii.gz")
    for name in ("Thumbs.db", "DICOMDIR", "notes.txt", "dataset.json", "README", "a.raw", "b.zraw", "c.img", "x.py"):
        (folder / name).write_bytes(b"x" * 400)
    assert discover([folder]) == Discovery(sources=(), skipped=())


def test_many_skipped_files_of_one_kind_are_summarised(tmp_path: Path) -> None:
    for i in range(12):
        write(tmp_path / "ct" / "masks" / f"{i}.nii", dtype=np.uint8)
    (skipped,) = discover([tmp_path / "ct"]).skipped
    assert skipped.name == "ct/masks"
    assert skipped.reason == "label map or 8-bit image (8-bit unsigned integer) (12 files)"


def test_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder"):
        discover([tmp_path / "nowhere"])


def test_a_single_file_is_one_volume(tmp_path: Path) -> None:
    assert names(discover([write(tmp_path / "a.nii.gz")])) == ["a.nii.gz"]
    slices = write_series(tmp_path / "series", BLANK)
    assert reasons(discover([slices[0]])) == {"series": "DICOM series of only 1 slice"}


def test_folders_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path / "x" / "ct" / "a.nii")
    write(tmp_path / "y" / "ct" / "a.nii")
    assert names(discover([tmp_path / "x" / "ct", tmp_path / "y" / "ct"])) == ["x/ct/a.nii", "y/ct/a.nii"]


def test_a_folder_given_twice_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "ct" / "sub" / "a.nii")
    assert names(discover([tmp_path / "ct", tmp_path / "ct", tmp_path / "ct" / "sub"])) == ["ct/sub/a.nii"]


def test_links_to_folders_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a.nii")
    (tmp_path / "ct" / "deep").mkdir(parents=True)
    (tmp_path / "ct" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "ct" / "deep" / "loop").symlink_to(tmp_path / "ct")
    assert names(discover([tmp_path / "ct"])) == ["ct/link/a.nii"]


def test_relative_folders_get_the_same_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "ct" / "a.nii")
    monkeypatch.chdir(tmp_path / "ct")
    assert names(discover(["."])) == ["ct/a.nii"]


def test_fingerprint_notices_change_and_does_not_depend_on_the_place(tmp_path: Path) -> None:
    path = write(tmp_path / "ct" / "a.nii")
    write_series(tmp_path / "ct" / "series", BLANK)
    write(tmp_path / "ct" / "b.mhd")
    before = [s.fingerprint() for s in discover([tmp_path / "ct"]).sources]
    shutil.copytree(tmp_path / "ct", tmp_path / "other" / "ct")  # keeps the times
    assert [s.fingerprint() for s in discover([tmp_path / "other" / "ct"]).sources] == before
    for changed in (path, tmp_path / "ct" / "series" / "003.dcm", tmp_path / "ct" / "b.raw"):
        os.utime(changed, ns=(0, 0))
    after = [s.fingerprint() for s in discover([tmp_path / "ct"]).sources]
    assert all(a != b for a, b in zip(after, before, strict=True))
    assert len(set(before)) == 3


def test_nothing_of_a_patient_is_in_what_discovery_returns(tmp_path: Path) -> None:
    write_series(tmp_path / "ct" / "a", BLANK, name="CT.1.2.826.0.{:d}")
    write_series(tmp_path / "ct" / "b", BLANK, name="CT.1.2.826.1.{:d}", Modality="MR")
    text = repr(discover([tmp_path / "ct"]))
    assert not any(secret in text for secret in SECRETS)
    assert str(tmp_path) not in text
