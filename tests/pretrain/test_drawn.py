import json
from pathlib import Path

import pytest

from nnunetv2_voco.pretrain.config import PretrainConfig
from nnunetv2_voco.pretrain.phantom_files import write_phantoms
from nnunetv2_voco.pretrain.run import RunError
from nnunetv2_voco.pretrain.training_plan import TrainingPlan
from tests.pretrain.test_accumulate import SHORT, stop_at
from tests.pretrain.tiny_run import run_tiny, same_bits, weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ct(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("input") / "cts"
    write_phantoms(root / "abdomen", number=3, seed=1, spacing_mm=6.0, dicom=False)
    write_phantoms(root / "chest", number=3, seed=2, spacing_mm=6.0, dicom=False)
    return root


@pytest.fixture(scope="module")
def weighted(ct, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "weighted"
    run_tiny(ct, out, **SHORT, weights="abdomen=8,chest=1")
    return out


def test_run_reports_what_it_drew(weighted, capsys):
    plan = TrainingPlan.load(weighted / "plan.json")
    names = {v["key"]: v["name"] for v in json.loads((weighted / "volumes.json").read_text())["volumes"]}
    folders = [names[key].split("/")[1] for key in plan.training]
    assert [plan.groups[i] for i in plan.group_of] == folders
    report = json.loads((weighted / "drawn.json").read_text())
    assert report["samples"] == 4 * 2 == sum(group["drawn"] for group in report["groups"])
    by_name = {group["group"]: group for group in report["groups"]}
    assert {name: group["volumes"] for name, group in by_name.items()} == {f: folders.count(f) for f in set(folders)}
    assert by_name["abdomen"]["drawn"] > by_name["chest"]["drawn"]
    assert by_name["abdomen"]["weight"] == 8


def test_weighted_run_continues_exactly_with_and_without_naming_the_weights(ct, weighted, tmp_path):
    out = tmp_path / "out"
    stop_at(out, ct, step=2, **SHORT, weights="abdomen=8,chest=1")
    with pytest.raises(RunError, match="abdomen=8,chest=1"):
        run_tiny(ct, out, resume=True, **SHORT, weights="abdomen=1,chest=1")
    run_tiny(ct, out, resume=True, **SHORT)
    assert same_bits(weights(out), weights(weighted))
    assert (out / "drawn.json").read_text() == (weighted / "drawn.json").read_text()


def test_table_that_changed_is_not_continued_with_and_its_path_is_not_kept(ct, tmp_path):
    table = tmp_path / "secret_place" / "weights.csv"
    table.parent.mkdir()
    table.write_text("name,weight,group\nabdomen,8,belly\n")
    out = tmp_path / "out"
    stop_at(out, ct, step=2, **SHORT, weights=str(table))
    assert PretrainConfig.load(out / "config.json").weights.startswith("weights.csv (")
    for path in out.rglob("*"):
        assert not path.is_file() or b"secret_place" not in path.read_bytes(), path.name
    table.write_text("name,weight,group\nabdomen,9,belly\n")
    with pytest.raises(RunError, match="weights.csv"):
        run_tiny(ct, out, resume=True, **SHORT, weights=str(table))


def test_name_that_fits_nothing_leaves_out_free_for_another_try(ct, tmp_path):
    for _ in range(2):
        with pytest.raises(ValueError, match="abdomne"):
            run_tiny(ct, tmp_path / "out", **SHORT, weights="abdomne=8")
    assert not (tmp_path / "out" / "config.json").exists()
