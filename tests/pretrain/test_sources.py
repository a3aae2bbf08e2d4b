"""The list of volumes that parts share, and who makes it."""

import os
import threading
import time
from pathlib import Path

import pytest

from nnunetv2_voco.pretrain import sources as sources_module
from nnunetv2_voco.pretrain.discover import Discovery, SkippedFile, VolumeSource
from nnunetv2_voco.pretrain.sources import (
    Fate,
    SourceList,
    list_sources,
    load_fates,
    load_names,
    merge_fates,
    note_fates,
)


@pytest.fixture
def folders(tmp_path) -> list[str]:
    for name in ("one", "two"):
        (tmp_path / name / "deep" / "er").mkdir(parents=True)
    (tmp_path / "single.nii.gz").touch()
    return [str(tmp_path / name) for name in ("one", "two", "single.nii.gz")]


@pytest.fixture
def found(folders, monkeypatch) -> Discovery:
    """Stands in for what `discover` finds: a file, a series in a strange folder, a file given itself."""
    one, two, single = (Path(folder) for folder in folders)
    strange = os.fsdecode(b"caf\xe9 \n#")
    series = tuple(two / "deep" / strange / f"IM{i}" for i in range(3))
    discovery = Discovery(
        sources=(
            VolumeSource(name="one/deep/a.nrrd", files=(one / "deep" / "a.nrrd",), file_format="nrrd"),
            VolumeSource(name="single.nii.gz", files=(single,), file_format="nifti"),
            VolumeSource(name=f"two/deep/{strange}#1", files=series, file_format="dicom"),
        ),
        skipped=(SkippedFile(name="one/x", reason="label map"),),
    )
    monkeypatch.setattr(sources_module, "discover", lambda *_args, **_options: discovery)
    return discovery


def make_list(tmp_path: Path, folders: list[str], *, afresh: bool = False) -> SourceList:
    return list_sources(tmp_path / "cache", folders, modality="CT", afresh=afresh)


def test_what_was_found_comes_back(tmp_path, folders, found):
    listed = make_list(tmp_path, folders)
    assert (listed.number, listed.skipped) == (3, 1)
    assert tuple(listed.sources(folders)) == found.sources
    assert listed.names() == [source.name for source in found.sources]
    assert listed.skipped_files() == found.skipped
    parts = [listed.sources(folders, part=part, parts=2) for part in (0, 1)]
    assert parts == [[found.sources[0], found.sources[2]], [found.sources[1]]]


def test_other_folders_or_modality_are_another_list(tmp_path, folders, found):
    files = {
        list_sources(tmp_path / "cache", folders, modality=modality, afresh=False).file for modality in ("CT", "MR")
    } | {list_sources(tmp_path / "cache", folders[::-1], modality="CT", afresh=False).file}
    assert len(files) == 3


def test_missing_folder_is_named_and_nothing_is_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent: no such folder"):
        make_list(tmp_path, [str(tmp_path / "absent")])
    assert not (tmp_path / "cache").exists()


def test_damaged_list_is_named_with_what_to_do(tmp_path, folders, found):
    file = make_list(tmp_path, folders).file
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(ValueError, match=f"{file.name}: .* --list"):
        make_list(tmp_path, folders)
    assert make_list(tmp_path, folders, afresh=True).number == 3


def test_others_wait_while_one_lists(tmp_path, folders, found, monkeypatch):
    calls, told = [], []

    def slow(*_args, **_options):
        calls.append(1)
        time.sleep(0.6)
        return found

    monkeypatch.setattr(sources_module, "discover", slow)
    monkeypatch.setattr(sources_module, "HEARTBEAT_S", 0.1)
    results: list[SourceList] = []

    def work() -> None:
        results.append(list_sources(tmp_path / "cache", folders, modality="CT", afresh=False, say=told.append))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(told) == 3
    assert len(results) == 4
    assert not list(tmp_path.rglob("*.lock"))


def test_lock_of_a_process_that_died_is_taken_over(tmp_path, folders, found, monkeypatch):
    monkeypatch.setattr(sources_module, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(sources_module, "SILENCE_S", 0.3)
    file = make_list(tmp_path, folders).file
    file.unlink()
    file.with_name(file.name.replace(".jsonl.gz", ".lock")).touch()
    assert make_list(tmp_path, folders).number == 3
    assert not list(tmp_path.rglob("*.lock"))


def test_of_a_volumes_fates_the_latest_counts(tmp_path):
    failed = Fate("t", "list", "cts/a", "nifti", "k0", "out of memory")
    done = failed._replace(reason=None)
    other = Fate("t", "list", "cts/b", "nrrd", "k1", None)
    for second, fates in enumerate(([failed, other], [done])):
        note_fates(tmp_path, fates)
        for file in (tmp_path / "sources" / "names").iterdir():
            if file.stat().st_mtime > 1e9:
                os.utime(file, (second, second))
    assert sorted(merge_fates(tmp_path)) == sorted([done, other])
    assert sorted(load_fates(tmp_path)) == sorted([done, other])
    assert len(list((tmp_path / "sources" / "names").iterdir())) == 1
    assert load_names(tmp_path) == {"k0": ("cts/a", "nifti"), "k1": ("cts/b", "nrrd")}
    assert load_names(tmp_path / "nothing") == {}
