"""`voco_preprocess --verify`: what is damaged in a cache is found, forgotten and made again."""

import json
import os
import shutil
from pathlib import Path

import pytest

from nnunetv2_voco.pretrain.parts import merge, verify
from tests.pretrain.preprocessed_parts import preprocess, printed, quiet, stored, write_folder


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
