"""Runs on a cache alone, without the folders that its volumes came from."""

import json
import re
import shutil
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from nnunetv2_voco.pretrain import cache as cache_module
from nnunetv2_voco.pretrain.cache import VolumeCache
from nnunetv2_voco.pretrain.collect import CollectError
from nnunetv2_voco.pretrain.parts import PartRequest, merge, preprocess_part
from nnunetv2_voco.pretrain.run import Request, RunError, pretrain
from nnunetv2_voco.pretrain.training_plan import TrainingPlan
from tests.pretrain.tiny_run import SETTINGS, run_tiny, same_bits, weights, write_ct

pytestmark = pytest.mark.slow

SHORT = {"steps": 4, "val_every": 4}


@pytest.fixture(scope="module")
def ct(tmp_path_factory) -> Path:
    return write_ct(tmp_path_factory.mktemp("input") / "cts")


@pytest.fixture(scope="module")
def cache(ct, tmp_path_factory) -> Path:
    """Made in two parts."""
    root, console = tmp_path_factory.mktemp("caches") / "cache", Console(file=StringIO())
    for part in range(2):
        request = PartRequest(
            folders=(str(ct),), cache=root, settings={"spacing": SETTINGS["spacing"]}, part=part, parts=2,
            num_processes=0,
        )  # fmt: skip
        preprocess_part(request, console)
    assert merge(root, console)
    return root


@pytest.fixture(scope="module")
def from_folder(ct, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "from_folder"
    assert run_tiny(ct, out, **SHORT) is not None
    return out


def run_cached(cache: Path, out: Path, *, resume: bool = False, dry_run: bool = False, **settings) -> str | None:
    return pretrain(
        Request(
            folders=(), out=out, cache=cache, settings=SETTINGS | SHORT | settings, resume=resume, dry_run=dry_run,
            num_processes=0,
        )
    )  # fmt: skip


def test_run_on_a_cache_is_bit_for_bit_that_on_the_folder(cache, from_folder, tmp_path):
    assert run_cached(cache, tmp_path / "out") is not None
    assert TrainingPlan.load(tmp_path / "out" / "plan.json") == TrainingPlan.load(from_folder / "plan.json")
    assert same_bits(weights(tmp_path / "out"), weights(from_folder))
    rows = [json.loads((out / "volumes.json").read_text())["volumes"] for out in (tmp_path / "out", from_folder)]
    assert rows[0] == rows[1]


def test_run_on_a_large_cache_neither_reads_records_nor_looks_for_arrays(cache, from_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "FEW", 2)  # so that five volumes are many

    def refuse(*_args):
        raise AssertionError

    for name in ("read_record", "is_whole", "recorded_keys"):
        monkeypatch.setattr(VolumeCache, name, refuse)
    run_cached(cache, tmp_path / "out")
    (tmp_path / "out" / "voco_state.pth").unlink()  # as if killed before the first state
    run_cached(cache, tmp_path / "out", resume=True)
    assert same_bits(weights(tmp_path / "out"), weights(from_folder))


def test_run_on_a_folder_uses_the_cache_that_parts_made(ct, cache, from_folder, tmp_path, monkeypatch):
    from nnunetv2_voco.pretrain import collect

    def refuse(*_args, **_options):
        raise AssertionError

    monkeypatch.setattr(collect, "process_volume", refuse)
    settings = SETTINGS | SHORT
    pretrain(Request(folders=(str(ct),), out=tmp_path / "out", cache=cache, settings=settings, num_processes=0))
    assert same_bits(weights(tmp_path / "out"), weights(from_folder))


def test_dry_run_on_a_cache_reads_no_folder(cache, tmp_path, capsys):
    assert run_cached(cache, tmp_path / "out", dry_run=True) is None
    printed = capsys.readouterr().out
    assert "Time: on this machine" in printed
    number, unit = re.search(r"Disk: about ([\d.]+) (MB|GB)", printed).groups()
    stored = sum(path.stat().st_size for path in cache.rglob("*.b2nd"))
    assert 0.6 < float(number) * {"MB": 1e6, "GB": 1e9}[unit] / stored < 1.4
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["volumes.json"]


def test_other_spacing_than_the_caches_is_explained(cache, tmp_path):
    with pytest.raises(CollectError, match="holds volumes at 6 × 6 × 6 mm"):
        run_cached(cache, tmp_path / "out", spacing=(5.0, 5.0, 5.0))


def test_absent_cache_is_explained(tmp_path):
    with pytest.raises(RunError, match="no folder of volumes was given"):
        run_cached(tmp_path / "absent", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CollectError, match="no pre-processed volumes"):
        run_cached(tmp_path / "empty", tmp_path / "out")


def test_volume_that_is_gone_is_named_with_what_to_do(cache, tmp_path):
    shutil.copytree(cache, tmp_path / "cache")
    lost = next((tmp_path / "cache").rglob("*.b2nd"))
    lost.unlink()
    with pytest.raises(FileNotFoundError, match=f"{lost.name}: .* gone; voco_preprocess --verify --forget"):
        run_cached(tmp_path / "cache", tmp_path / "out")


def test_lossy_caches_train_and_do_not_mix(ct, cache, from_folder, tmp_path):
    assert run_tiny(ct, tmp_path / "out", lossy=2, **SHORT) is not None
    assert not same_bits(weights(tmp_path / "out"), weights(from_folder))
    assert all(torch.isfinite(w).all() for w in weights(tmp_path / "out").values())
    with pytest.raises(CollectError, match="to within 2 HU"):
        run_cached(cache, tmp_path / "other", lossy=2)
