"""`voco_preprocess` in parts: whatever the mixture of parts, order, restarts and processes, the cache is the same."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from rich.console import Console

from nnunetv2_voco.pretrain import collect as collect_module
from nnunetv2_voco.pretrain import preprocess_cli
from nnunetv2_voco.pretrain import sources as sources_module
from nnunetv2_voco.pretrain.cache import VolumeCache
from nnunetv2_voco.pretrain.cached import cached_collection, cached_targets
from nnunetv2_voco.pretrain.collect import CollectError, collect
from nnunetv2_voco.pretrain.parts import PartRequest, merge, preprocess_part, verify
from nnunetv2_voco.pretrain.phantom import make_phantom
from nnunetv2_voco.pretrain.phantom_files import to_sitk, write_dicom
from nnunetv2_voco.pretrain.preprocess import Target

SPACING = (8.0, 8.0, 8.0)
TARGET = Target(spacing_mm=SPACING)
COMMAND = [sys.executable, "-c", "from nnunetv2_voco.pretrain.preprocess_cli import main; main()"]
OPTIONS = ["--spacing", "8", "-np", "1"]
VOLUMES = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Five good volumes of two formats, a copy of one, a broken one, and a file that is no volume."""
    path = tmp_path_factory.mktemp("SECRET_PLACE") / "cts"
    path.mkdir()
    phantoms = [make_phantom(np.random.default_rng((9, i)), spacing_mm=8.0, field="chest") for i in range(5)]
    for i, phantom in enumerate(phantoms[:4]):
        sitk.WriteImage(to_sitk(phantom.image_zyx, phantom.spacing_mm), str(path / f"volume{i}.nii.gz"))
    write_dicom(phantoms[4], path / "series", uid_seed="a")
    (path / "sub").mkdir()
    (path / "sub" / "copy.nii.gz").write_bytes((path / "volume1.nii.gz").read_bytes())
    whole = (path / "volume0.nii.gz").read_bytes()
    (path / "truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    labels = (phantoms[0].labels_zyx > 0).astype(np.uint8)
    sitk.WriteImage(to_sitk(labels, SPACING), str(path / "labels.nii.gz"))
    return path


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory) -> Path:
    """The cache made in one go."""
    cache = tmp_path_factory.mktemp("caches") / "whole"
    preprocess(folder, cache)
    assert merge(cache, quiet())
    return cache


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """As in a worker process: on volumes this small threads cost more than they do."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    yield
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def quiet() -> Console:
    return Console(file=StringIO(), width=200)


def preprocess(folder: Path, cache: Path, part: int = 0, parts: int = 1, **options):
    request = PartRequest(
        folders=(str(folder),), cache=cache, settings={"spacing": SPACING}, part=part, parts=parts, num_processes=0,
        **options,
    )  # fmt: skip
    return preprocess_part(request, quiet())


def stored(cache: Path) -> dict[str, bytes]:
    """All files of the cache proper: arrays, records and index."""
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in sorted(cache.rglob("*"))
        if path.is_file() and "sources" not in path.parts
    }


def printed(function, *arguments, **options) -> tuple[object, str]:
    console = quiet()
    result = function(*arguments, console, **options)
    return result, console.file.getvalue()


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


DAMAGES = {
    "bytes have changed": lambda path: path.write_bytes(path.read_bytes()[:-9] + b"\x55" * 9),
    "bytes, ": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "cannot be read": lambda path: path.unlink(),
    "record is gone or damaged": lambda path: path.with_suffix(".json").write_text("{"),
    "differs from the index": lambda path: path.with_suffix(".json").write_text(
        path.with_suffix(".json").read_text().replace('"fill": -1024', '"fill": -1000')
    ),
}


@pytest.mark.parametrize("fault", DAMAGES)
def test_verify_finds_what_is_damaged_and_forget_mends_it(folder, whole, tmp_path, fault):
    shutil.copytree(whole, tmp_path / "cache")
    status, text = printed(verify, tmp_path / "cache", num_threads=2, forgetting=False)
    assert (status, "0 faulty" in text) == (0, True)
    path = sorted((tmp_path / "cache").rglob("*.b2nd"))[2]
    DAMAGES[fault](path)
    status, text = printed(verify, tmp_path / "cache", num_threads=2, forgetting=False)
    assert status == 1
    (line,) = [line for line in text.splitlines() if path.stem in line]
    assert fault in line
    assert "cts/" in line
    assert printed(verify, tmp_path / "cache", num_threads=2, forgetting=True)[0] == 1
    assert printed(verify, tmp_path / "cache", num_threads=2, forgetting=False)[0] == 0
    preprocess(folder, tmp_path / "cache")
    assert merge(tmp_path / "cache", quiet())
    assert stored(tmp_path / "cache") == stored(whole)


def test_verify_reads_what_a_digest_cannot_tell(folder, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "cache")
    path = sorted((tmp_path / "cache").rglob("*.b2nd"))[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = os.urandom(64)
    path.write_bytes(content)
    record_file = path.with_suffix(".json")
    record = json.loads(record_file.read_text())
    record_file.write_text(json.dumps({**record, "digest": ""}))  # as in caches made before digests were kept
    status, _ = printed(verify, tmp_path / "cache", num_threads=1, forgetting=False)
    assert status == 1


def test_target_of_other_version_is_left_alone(whole, tmp_path):
    (tmp_path / "abc").mkdir()
    (tmp_path / "abc" / "target.json").write_text('{"spacing_mm": [1, 1, 1], "of_another_version": 1}')
    assert cached_targets(tmp_path) == []
    with pytest.raises(CollectError, match="no cache"):
        merge(tmp_path, quiet())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["X"], "required"),
        (["-o", "C"], "no folder"),
        (["X", "-o", "C", "--num-parts", "3"], "go together"),
        (["X", "-o", "C", "--num-parts", "3", "--part-id", "3"], "0 to 2"),
        (["X", "-o", "C", "--merge"], "-o CACHE only"),
        (["-o", "C", "--merge", "--verify"], "two steps"),
        (["X", "-o", "C", "--forget"], "--verify"),
        (["X", "-o", "C", "-d", "3", "--spacing", "2"], "exclude"),
        (["X", "-o", "C"], "no such folder"),
        (["-o", "C", "--merge"], "no cache"),
        (["-o", "C", "--verify"], "no cache"),
    ],
)
def test_wrong_use_is_one_clear_line(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        preprocess_cli.main(words)
    assert stop.value.code not in (None, 0)
    message = str(stop.value.code) + capsys.readouterr().err
    assert said in message
    assert "Traceback" not in message
    assert list(tmp_path.iterdir()) == []


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
    done = subprocess.run([*COMMAND, "-o", str(tmp_path), "--merge"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert stored(tmp_path) == stored(whole)
    assert not list(tmp_path.rglob("*.lock"))
