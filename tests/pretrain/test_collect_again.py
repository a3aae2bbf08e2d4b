"""A second run over a folder: what the cache spares, and what it may not."""

from pathlib import Path

import pytest

from nnunetv2_voco.pretrain import collect as collect_module
from nnunetv2_voco.pretrain.cache import VolumeCache
from nnunetv2_voco.pretrain.phantom import Phantom
from nnunetv2_voco.pretrain.preprocess import Target
from nnunetv2_voco.pretrain.rejection import RejectedVolume
from tests.pretrain.collected import TARGET, make_phantoms, note_reads, reasons, run, write, write_folder


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return make_phantoms()


@pytest.fixture
def folder(tmp_path, phantoms) -> Path:
    return write_folder(tmp_path / "cts", phantoms)


@pytest.fixture
def cache(tmp_path) -> VolumeCache:
    return VolumeCache(tmp_path / "cache", TARGET)


@pytest.fixture
def read_names(monkeypatch) -> list[str]:
    return note_reads(monkeypatch)


def test_rejected_volumes_are_not_read_again(folder, cache, read_names):
    whole = (folder / "a.nii.gz").read_bytes()
    (folder / "truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    first = reasons(run(folder, cache))
    del read_names[:]
    assert reasons(run(folder, cache)) == first
    assert read_names == []


@pytest.mark.parametrize("cause", [OSError("gone for a moment"), MemoryError()])
def test_failures_that_may_pass_are_not_remembered(folder, cache, monkeypatch, cause):
    def fail(_source, **_options):
        try:
            raise cause
        except (OSError, MemoryError):
            raise RejectedVolume("not now") from None

    with monkeypatch.context() as patch:
        patch.setattr(collect_module, "read_volume", fail)
        collection = run(folder, cache)
    assert set(reasons(collection).values()) == {"not now"}
    assert len(run(folder, cache).usable) == 3


def test_second_run_reads_nothing(folder, cache, read_names):
    first = run(folder, cache)
    assert len(read_names) == 3
    del read_names[:]
    assert run(folder, cache) == first
    assert read_names == []


def test_interrupted_run_redoes_only_what_is_missing(folder, cache, read_names, monkeypatch):
    prepare = collect_module.prepare

    def stop_at_third(image, target):
        if len(read_names) == 3:
            raise KeyboardInterrupt
        return prepare(image, target)

    with monkeypatch.context() as patch:
        patch.setattr(collect_module, "prepare", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            run(folder, cache)
    del read_names[:]
    assert len(run(folder, cache).usable) == 3
    assert read_names == ["cts/c.nii.gz"]


def test_lost_array_is_made_again(folder, cache, read_names):
    first = run(folder, cache)
    del read_names[:]
    key = first.usable[1].record.key
    next(cache.folder.rglob(f"{key}.b2nd")).unlink()
    assert run(folder, cache) == first
    assert read_names == ["cts/b.nii.gz"]


def test_changed_file_is_noticed(folder, cache, phantoms, read_names):
    first = run(folder, cache)
    del read_names[:]
    write(phantoms[3], folder / "b.nii.gz")
    second = run(folder, cache)
    assert read_names == ["cts/b.nii.gz"]
    assert second.volumes[1].record.content != first.volumes[1].record.content


def test_other_spacing_is_another_cache(folder, cache, tmp_path, read_names):
    first = run(folder, cache)
    target = Target(spacing_mm=(10.0, 9.0, 9.0))
    second = run(folder, VolumeCache(tmp_path / "cache", target), target=target)
    assert len(read_names) == 6
    assert second.usable[0].record.shape < first.usable[0].record.shape
    assert run(folder, cache) == first


def test_cache_is_shared_wherever_the_folder_lies(folder, cache, tmp_path, read_names):
    first = run(folder, cache)
    moved = tmp_path / "moved" / "cts"
    moved.parent.mkdir()
    folder.rename(moved)
    del read_names[:]
    assert run(moved, cache) == first
    assert read_names == []
