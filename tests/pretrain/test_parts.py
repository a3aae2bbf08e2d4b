"""`voco_preprocess` in parts: whatever the mixture of parts, order, restarts and processes, the cache is the same."""

import gzip
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import SimpleITK as sitk

from nnunetv2_voco.atomic import ABANDONED_S
from nnunetv2_voco.pretrain import collect as collect_module
from nnunetv2_voco.pretrain import sources as sources_module
from nnunetv2_voco.pretrain.cache import VolumeCache
from nnunetv2_voco.pretrain.cached import cached_collection, cached_targets
from nnunetv2_voco.pretrain.collect import CollectError, collect
from nnunetv2_voco.pretrain.parts import merge
from nnunetv2_voco.pretrain.preprocess import Target
from tests.pretrain.preprocessed_parts import SPACING, preprocess, printed, quiet, stored, write_folder

TARGET = Target(spacing_mm=SPACING)
COMMAND = [sys.executable, "-c", "from nnunetv2_voco.pretrain.preprocess_cli import main; main()"]
OPTIONS = ["--spacing", "8", "-np", "1"]
VOLUMES = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("SECRET_PLACE") / "cts")


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory) -> Path:
    """The cache made in one go."""
    cache = tmp_path_factory.mktemp("caches") / "whole"
    preprocess(folder, cache)
    assert merge(cache, quiet())
    return cache


def a_day_ago(path: Path) -> None:
    os.utime(path, (path.stat().st_mtime - ABANDONED_S - 60,) * 2)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """As in a worker process: on volumes this small threads cost more than they do."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    yield
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 1, 2, 0, 2)])
def test_parts_in_any_order_and_number_end_in_the_same_cache(folder, whole, tmp_path, order):
    for part in order:
        preprocess(folder, tmp_path, part, 3)
    assert merge(tmp_path, quiet())
    assert stored(tmp_path) == stored(whole)


def test_parts_of_different_divisions_mix(folder, whole, tmp_path):
    preprocess(folder, tmp_path, 1, 2)
    assert merge(tmp_path, quiet()) is False
    preprocess(folder, tmp_path, 0, 3)
    preprocess(folder, tmp_path)
    assert merge(tmp_path, quiet())
    assert stored(tmp_path) == stored(whole)


def test_parts_divide_the_volumes(folder, tmp_path):
    done = [preprocess(folder, tmp_path, part, 3) for part in range(3)]
    names = [volume.name for collection in done for volume in collection.volumes]
    assert len(names) == VOLUMES
    assert len(set(names)) == VOLUMES
    assert max(len(collection.volumes) for collection in done) == 3


def test_cache_is_that_of_a_run_over_the_folder(folder, whole, tmp_path):
    cache = VolumeCache(tmp_path, TARGET)
    collection = collect([folder], cache, target=TARGET, modality="CT", num_processes=0)
    assert stored(tmp_path) == stored(whole)
    assert cached_collection(whole, TARGET).volumes == collection.volumes  # names, rejections and copies as well
    assert [volume.name for volume in collection.volumes if not volume.record.usable] == [
        "cts/truncated.nii.gz",
        "cts/volume1.nii.gz",
    ]


def test_interrupted_part_goes_on_where_it_was(folder, whole, tmp_path, monkeypatch):
    read_names = []
    read = collect_module.read_volume

    def note(source, **options):
        if len(read_names) == 2:
            raise KeyboardInterrupt
        read_names.append(source.name)
        return read(source, **options)

    with monkeypatch.context() as patch:
        patch.setattr(collect_module, "read_volume", note)
        with pytest.raises(KeyboardInterrupt):
            preprocess(folder, tmp_path, 0, 2)
    assert merge(tmp_path, quiet()) is False
    monkeypatch.setattr(collect_module, "read_volume", lambda s, **o: (read_names.append(s.name), read(s, **o))[1])
    for part in (0, 1):
        preprocess(folder, tmp_path, part, 2)
    assert len(read_names) == len(set(read_names)) == VOLUMES
    assert merge(tmp_path, quiet())
    assert stored(tmp_path) == stored(whole)


def test_merge_finds_records_that_no_part_entered(folder, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(VolumeCache, "add_to_index", lambda _self, _records: None)  # as if killed before
        preprocess(folder, tmp_path)
    assert len(VolumeCache(tmp_path, TARGET).open_index()) == 0
    with pytest.raises(CollectError, match="--merge"):
        cached_collection(tmp_path, TARGET)
    assert merge(tmp_path, quiet())
    assert stored(tmp_path) == stored(whole)


def test_missing_and_failed_volumes_are_named_by_merge(folder, tmp_path, monkeypatch):
    def fail(source, **options):
        if source.name == "cts/volume2.nii.gz":
            raise RuntimeError("private text")
        return read(source, **options)

    read = collect_module.read_volume
    monkeypatch.setattr(collect_module, "read_volume", fail)
    preprocess(folder, tmp_path, 0, 2)
    complete, text = printed(merge, tmp_path)
    assert not complete
    assert "3 were not processed yet: cts/sub/copy.nii.gz, cts/volume0.nii.gz" in text.replace("\n", " ")
    preprocess(folder, tmp_path, 1, 2)
    complete, text = printed(merge, tmp_path)
    assert complete
    assert "failed, may pass: cts/volume2.nii.gz: could not be processed (RuntimeError)" in text
    assert "private" not in text


def test_folders_are_searched_once_for_all_parts(folder, tmp_path, monkeypatch):
    searches = []
    discover = sources_module.discover
    monkeypatch.setattr(sources_module, "discover", lambda *a, **o: (searches.append(a), discover(*a, **o))[1])
    for part in range(3):
        preprocess(folder, tmp_path, part, 3)
    assert len(searches) == 1
    preprocess(folder, tmp_path, only_list=True)
    assert len(searches) == 2


def test_volumes_that_were_added_are_found_without_parts_and_by_list(folder, tmp_path):
    cts = tmp_path / "cts"
    cts.mkdir()
    (cts / "a.nii.gz").write_bytes((folder / "volume0.nii.gz").read_bytes())
    cache = tmp_path / "cache"
    preprocess(cts, cache)
    (cts / "b.nii.gz").write_bytes((folder / "volume2.nii.gz").read_bytes())
    assert len(preprocess(cts, cache, 0, 2).volumes) == 1
    (cts / "0.nii.gz").write_bytes((folder / "volume3.nii.gz").read_bytes())  # before the others, which move up
    preprocess(cts, cache, only_list=True)
    complete, text = printed(merge, cache)
    assert not complete
    assert "2 were not processed yet: cts/0.nii.gz, cts/b.nii.gz" in text.replace("\n", " ")
    assert sum(len(preprocess(cts, cache, part, 2).volumes) for part in (0, 1)) == 3
    assert merge(cache, quiet())
    assert len(cached_collection(cache, TARGET).usable) == 3


def test_names_lie_apart_and_no_path_above_the_folder_is_kept(folder, whole):
    for name, content in stored(whole).items():
        for secret in (b"SECRET", b"volume1", b"cts", b"series", b"PHANTOM"):
            assert secret not in content, name
    for path in (whole / "sources").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            content = gzip.decompress(content) if path.suffix == ".gz" else content
            assert b"SECRET_PLACE" not in content, path
            assert b"PHANTOM^" not in content, path


def test_cache_serves_without_the_names(folder, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "bare", ignore=shutil.ignore_patterns("sources"))
    with_names = {v.record.key for v in cached_collection(whole, TARGET).volumes if v.record.content}
    bare = cached_collection(tmp_path / "bare", TARGET)
    assert {v.record.key for v in bare.volumes if v.record.content} == with_names
    assert len(bare.usable) == 5
    assert all(volume.name == f"volume {volume.record.key}" for volume in bare.volumes)


def test_cache_at_another_target_is_explained(whole):
    with pytest.raises(CollectError, match=r"holds volumes at 8 × 8 × 8 mm .* needs 2 × 2 × 2 mm") as error:
        cached_collection(whole, Target(spacing_mm=(2.0, 2.0, 2.0)))
    assert "--spacing" in str(error.value)
    assert cached_targets(whole) == [TARGET]


def test_target_of_other_version_is_left_alone(whole, tmp_path):
    (tmp_path / "abc").mkdir()
    (tmp_path / "abc" / "target.json").write_text('{"spacing_mm": [1, 1, 1], "of_another_version": 1}')
    assert cached_targets(tmp_path) == []
    with pytest.raises(CollectError, match="no cache"):
        merge(tmp_path, quiet())


@pytest.mark.slow
def test_processes_at_a_time_and_a_killed_one_end_in_the_same_cache(folder, whole, tmp_path):
    def start(part: int, parts: int) -> subprocess.Popen:
        words = [str(folder), "-o", str(tmp_path), *OPTIONS, "--num-parts", str(parts), "--part-id", str(part)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([*COMMAND, *words], env=environment, stdout=subprocess.DEVNULL)

    killed, others = start(0, 2), [start(1, 2), start(0, 1)]
    while not list(tmp_path.rglob("*.b2nd")):
        assert killed.poll() is None
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    others.append(start(0, 2))
    assert [process.wait(timeout=200) for process in others] == [0, 0, 0]
    for leftover in tmp_path.rglob(".*.tmp"):  # where it was killed while it wrote
        a_day_ago(leftover)
    done = subprocess.run([*COMMAND, "-o", str(tmp_path), "--merge"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert stored(tmp_path) == stored(whole)
    assert not list(tmp_path.rglob("*.lock"))


def test_what_killed_writers_left_is_removed_and_harms_nothing_before(folder, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "cache")
    volume = next((tmp_path / "cache").rglob("*.b2nd"))
    segment = next((tmp_path / "cache").rglob("*.npz"))
    names = next((tmp_path / "cache" / "sources").rglob("*.gz"))
    leftovers = [
        path.with_name(f".{path.name}.x1y2.tmp") for path in (volume, volume.with_suffix(".json"), segment, names)
    ]
    for leftover in leftovers:
        leftover.write_bytes(b"half")
    assert merge(tmp_path / "cache", quiet())
    assert all(leftover.exists() for leftover in leftovers)  # somebody may be writing them
    for leftover in leftovers:
        a_day_ago(leftover)
    assert merge(tmp_path / "cache", quiet())
    assert not list((tmp_path / "cache").rglob(".*.tmp"))
    assert stored(tmp_path / "cache") == stored(whole)
