import gzip
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_voco.pretrain import collect as collect_module
from nnunetv2_voco.pretrain.cache import Record, VolumeCache
from nnunetv2_voco.pretrain.collect import CollectError, collect
from nnunetv2_voco.pretrain.phantom import Phantom, make_phantom
from nnunetv2_voco.pretrain.phantom_files import to_sitk, write_dicom
from nnunetv2_voco.pretrain.preprocess import Target
from nnunetv2_voco.pretrain.workers import CRASHED
from tests.pretrain.collected import TARGET, make_phantoms, reasons, run, write, write_folder
from tests.pretrain.dicom_factory import PATIENT_TAGS, SECRETS

KILLER = "killer.nii.gz"


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return make_phantoms()


@pytest.fixture
def folder(tmp_path, phantoms) -> Path:
    return write_folder(tmp_path / "cts", phantoms)


@pytest.fixture
def cache(tmp_path) -> VolumeCache:
    return VolumeCache(tmp_path / "cache", TARGET)


def bytes_below(folder: Path) -> bytes:
    return b"".join(path.name.encode() + path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_every_volume_is_cached(folder, cache):
    progress = []
    collection = collect(
        [folder], cache, target=TARGET, modality="CT", num_processes=0, on_progress=lambda *now: progress.append(now)
    )
    collection.require_usable()
    assert [volume.name for volume in collection.usable] == ["cts/a.nii.gz", "cts/b.nii.gz", "cts/c.nii.gz"]
    assert progress == [(0, 3), (1, 3), (2, 3), (3, 3)]
    for volume in collection.usable:
        assert replace(cache.record(volume.record.key), histogram=None) == volume.record
        read = cache.open(volume.record).read((0, 0, 0), volume.record.shape)
        assert -1024 <= read.min() < -500 < 100 < read.max()


def test_workers_and_this_process_give_the_same(folder, cache, tmp_path):
    other = VolumeCache(tmp_path / "other", TARGET)
    assert run(folder, cache) == run(folder, other, processes=2)
    for path in cache.folder.rglob("*.json"):
        assert path.read_bytes() == (other.folder / path.relative_to(cache.folder)).read_bytes()


def test_bad_volumes_are_listed_with_reasons_and_the_others_are_used(folder, cache, phantoms, tmp_path):
    whole = (folder / "a.nii.gz").read_bytes()
    (folder / "truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "garbage.nrrd").write_bytes(b"NRRD0004\nnonsense")
    not_hu = phantoms[3].image_zyx.clip(0, 100)
    sitk.WriteImage(to_sitk(not_hu, (8.0, 8.0, 8.0)), str(folder / "no_air.nii.gz"))
    labels = (phantoms[3].labels_zyx > 0).astype(np.uint8)
    sitk.WriteImage(to_sitk(labels, (8.0, 8.0, 8.0)), str(folder / "labels.nii.gz"))
    collection = run(folder, cache, processes=2)
    assert len(collection.usable) == 3
    listed = reasons(collection) | {skipped.name: skipped.reason for skipped in collection.skipped}
    for name in ("truncated.nii.gz", "garbage.nrrd", "no_air.nii.gz", "labels.nii.gz"):
        assert listed[f"cts/{name}"], name
    collection.save(tmp_path / "volumes.json", {collection.usable[0].record.key: "training"})
    saved = json.loads((tmp_path / "volumes.json").read_text())
    status = {row["name"]: row["status"] for row in saved["volumes"] + saved["skipped"]}
    assert status["cts/a.nii.gz"] == "training"
    assert status["cts/b.nii.gz"] == "usable"
    assert status["cts/truncated.nii.gz"] == "rejected"
    assert status["cts/labels.nii.gz"] == "skipped"
    assert all(row["reason"] for row in saved["volumes"] if row["status"] == "rejected")


def test_a_bug_in_a_reader_does_not_end_the_run(folder, cache, monkeypatch):
    read = collect_module.read_volume

    def fail(source, **options):
        if source.name.endswith("b.nii.gz"):
            raise RuntimeError(f"private text with {source.files[0]}")
        return read(source, **options)

    monkeypatch.setattr(collect_module, "read_volume", fail)
    collection = run(folder, cache)
    assert reasons(collection)["cts/b.nii.gz"] == "could not be processed (RuntimeError)"
    assert len(collection.usable) == 2


def test_file_that_vanishes_is_listed(folder, cache, monkeypatch):
    discover = collect_module.discover

    def discover_then_remove(*args, **kwargs):
        found = discover(*args, **kwargs)
        (folder / "b.nii.gz").unlink()
        return found

    monkeypatch.setattr(collect_module, "discover", discover_then_remove)
    assert "cannot be opened" in reasons(run(folder, cache))["cts/b.nii.gz"]


@pytest.mark.parametrize("stored", [True, False])
def test_the_same_volume_in_two_formats_is_used_once(folder, tmp_path, cache, phantoms, stored):
    write_dicom(phantoms[1], folder / "series", uid_seed="copy")
    collection = run(folder, cache if stored else None)
    rejected = {name: reason for name, reason in reasons(collection).items() if reason}
    assert rejected == {"cts/series": "the same voxels as cts/b.nii.gz"}


@pytest.mark.parametrize("number", [0, 1])
def test_fewer_than_two_volumes_are_an_error(tmp_path, cache, phantoms, number):
    folder = tmp_path / "few"
    folder.mkdir()
    (folder / "broken.nrrd").write_bytes(b"NRRD0004\nnonsense")
    for i in range(number):
        write(phantoms[i], folder / f"{i}.nii.gz")
    with pytest.raises(CollectError, match=f"{number} usable"):
        run(folder, cache).require_usable()


def test_missing_folder_is_an_error(tmp_path, cache):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        run(tmp_path / "nowhere", cache)
    assert not cache.folder.exists()


def test_checking_only_writes_nothing(folder, tmp_path, monkeypatch):
    before = sorted(tmp_path.rglob("*"))
    collection = run(folder, None, processes=2)
    assert len(collection.usable) == 3
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_expected_shape_bounds_the_cached_one(folder, tmp_path, transpose):
    phantom = make_phantom(np.random.default_rng(1), spacing_mm=(10.0, 6.0, 6.0))
    image = sitk.DICOMOrient(to_sitk(phantom.image_zyx, phantom.spacing_mm), "SLA")
    sitk.WriteImage(image, str(folder / "turned.nii.gz"))
    target = Target(spacing_mm=(9.0, 8.0, 7.0), transpose=transpose)
    expected = run(folder, None, target=target).volumes
    cached = run(folder, VolumeCache(tmp_path / "cache", target), target=target).volumes
    for before, after in zip(expected, cached, strict=True):
        assert all(b >= a >= 0.5 * b for b, a in zip(before.record.shape, after.record.shape, strict=True))


def _kill_on_killer(source, cache, target) -> Record:
    """Stands in for `process_volume` in a worker: one volume kills its process."""
    if source.name.endswith(KILLER):
        os.kill(os.getpid(), signal.SIGKILL)
    return Record(key=source.name)


def test_a_volume_that_kills_its_worker_is_rejected_and_the_others_are_done(folder, cache, monkeypatch):
    for name in (KILLER, *(f"more{i}.nii.gz" for i in range(8))):
        (folder / name).write_bytes((folder / "a.nii.gz").read_bytes())
    monkeypatch.setattr(collect_module, "process_volume", _kill_on_killer)
    collection = run(folder, cache, processes=2)
    rejected = {name: reason for name, reason in reasons(collection).items() if reason}
    assert rejected == {f"cts/{KILLER}": CRASHED}
    assert len(collection.usable) == 11


def test_patient_tags_and_paths_are_nowhere_in_the_cache(tmp_path, cache, phantoms):
    import pydicom

    folder = tmp_path / "Secretfolder" / "cts"
    folder.mkdir(parents=True)
    for i, name in enumerate(("Secretname_one", "Secretname_two")):
        write_dicom(phantoms[i], folder / name, uid_seed=name)
        for file in (folder / name).iterdir():
            data = pydicom.dcmread(file)
            for tag, value in PATIENT_TAGS.items():
                setattr(data, tag, value)
            data.save_as(file)
    whole = gzip.compress(b"no image of Secretname")
    (folder / "Secretname_bad.nii.gz").write_bytes(whole)
    collection = run(folder, cache, processes=2)
    assert len(collection.usable) == 2
    stored = bytes_below(tmp_path / "cache")
    for secret in (*SECRETS, *PATIENT_TAGS.values(), "PHANTOM", "ecret", "cts", str(tmp_path)):
        assert secret.encode() not in stored, secret
    collection.save(tmp_path / "volumes.json")
    listed = (tmp_path / "volumes.json").read_text()
    assert "Secretfolder" not in listed
    for secret in ("^Patient", "SECRETID77", "19330303", "Secret Hospital", str(tmp_path)):
        assert secret not in listed
    assert not any(os.path.isabs(volume.name) for volume in collection.volumes)
