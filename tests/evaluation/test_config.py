import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from nnunetv2_voco.evaluation.benchmark.cli import EXAMPLES, example
from nnunetv2_voco.evaluation.benchmark.config import ConfigError, read_benchmark

FULL: dict[str, Any] = {
    "labels": ["5%", 10],
    "schedules": ["stock", "warmup"],
    "datasets": [904, {"dataset": "Dataset902_SarcomaCT", "labels": "all", "folds": [0, 1], "plans": "mine"}],
    "initialisations": [{"name": "ct", "checkpoint": "runs/ct.pth"}, {"name": "hub", "checkpoint": "hf://a/b"}],
}


def read(folder: Path, content: object) -> Any:
    file = folder / "mine.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return read_benchmark(file)


def test_keys_at_the_top_hold_for_all_data_sets_unless_one_has_its_own(tmp_path: Path) -> None:
    first, second = read(tmp_path, FULL).datasets
    assert (first.dataset, first.labels, first.folds, first.plans) == ("904", ("5%", "10"), (0,), "nnUNetPlans")
    assert (second.labels, second.folds, second.plans) == (("100%",), (0, 1), "mine")
    assert first.schedules == second.schedules == ("stock", "warmup")


def test_twin_is_always_there_and_first(tmp_path: Path) -> None:
    named = FULL | {"initialisations": [*FULL["initialisations"], "scratch"]}
    for content in (FULL, named):
        assert [item.name for item in read(tmp_path, content).datasets[0].initialisations] == ["scratch", "ct", "hub"]
    alone = read(tmp_path, {"datasets": [904]}).datasets[0]
    assert [item.name for item in alone.initialisations] == ["scratch"]


def test_paths_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNS", str(tmp_path / "elsewhere"))
    benchmark = read(tmp_path, FULL)
    assert benchmark.out == tmp_path / "mine_benchmark"
    assert [i.checkpoint for i in benchmark.datasets[0].initialisations[1:]] == [
        str(tmp_path / "runs/ct.pth"),
        "hf://a/b",
    ]
    moved = FULL | {"out": "../o", "initialisations": [{"name": "ct", "checkpoint": "$RUNS/ct.pth"}]}
    assert read(tmp_path, moved).out == tmp_path.parent / "o"
    assert read(tmp_path, moved).datasets[0].initialisations[1].checkpoint == str(tmp_path / "elsewhere/ct.pth")


@pytest.mark.parametrize("written", ["3e-3", "0.003"])
def test_learning_rate_may_be_written_in_either_way(tmp_path: Path, written: str) -> None:
    grid = read(tmp_path, f"initial_lr: {written}\ndatasets: [904]").datasets[0]
    assert grid.initial_lr == 0.003


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": [1]}, r"unknown key 'seed'; did you mean seeds\?"),
        ({"datasets": []}, "datasets: none is listed"),
        ({"datasets": 904}, "expected a mapping with a list under the key datasets"),
        ({"datasets": [{"plans": "x"}]}, "entry 1: the key dataset is missing"),
        ({"datasets": [904, {"dataset": 1, "epoch": 3}]}, r"entry 2: unknown key 'epoch'; did you mean epochs\?"),
        ({"labels": ["5%", 0.05]}, "labels: expected different values"),
        ({"labels": ["many"]}, "labels: amount of labels 'many'"),
        ({"seeds": [0, -1]}, "seeds: expected whole numbers from 0 on"),
        ({"folds": ["all"]}, "folds: expected whole numbers"),
        ({"initial_lr": "fast"}, "initial_lr: expected a learning rate between 0 and 1, found 'fast'"),
        ({"initial_lr": 3}, "initial_lr: expected a learning rate between 0 and 1, found 3"),
        ({"epochs": 0}, "epochs: expected a whole number from 1 on, found 0"),
        ({"jobs": 1.5}, "jobs: expected a whole number"),
        ({"device": "gpu"}, "device: 'gpu' is none of cuda, cpu, mps"),
        ({"nsd_tolerance_mm": 0}, "nsd_tolerance_mm: 0 is not positive"),
        ({"initialisations": ["ct"]}, "expected a mapping with name and checkpoint, found 'ct'"),
        ({"initialisations": [{"name": "ct"}]}, "'ct': every one but scratch has a checkpoint or a number"),
        ({"initialisations": [{"name": "scratch", "random": 1}]}, "'scratch': every one but scratch has"),
        ({"initialisations": [{"name": "a", "checkpoint": "x", "random": 1}]}, "'a': every one but scratch has"),
        ({"initialisations": [{"name": "a", "random": 0}]}, "'a': random: expected a whole number from 1 on, found 0"),
        ({"initialisations": [{"name": "a", "random": 1, "decoder": True}]}, "decoder, .* need a checkpoint"),
        ({"initialisations": [{"checkpoint": "x"}]}, "the key name is missing"),
        ({"initialisations": [{"name": "a_b", "checkpoint": "x"}]}, "name 'a_b': take letters, digits and -"),
        ({"initialisations": [{"name": "a", "checkpoint": "x"}] * 2}, "initialisations: expected different values"),
    ],
)
def test_mistakes_are_named_with_file_and_key(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, FULL | change)
    assert str(caught.value).startswith(str(tmp_path / "mine.yaml"))


def test_what_is_no_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mine.yaml"):
        read(tmp_path, "datasets: [")
    with pytest.raises(FileNotFoundError, match="nowhere.yaml"):
        read_benchmark(tmp_path / "nowhere.yaml")


def test_cores_are_shared_between_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert read(tmp_path, FULL).threads_of_a_run == 8
    assert read(tmp_path, FULL | {"jobs": 3}).threads_of_a_run == 2
    assert read(tmp_path, FULL | {"jobs": 16}).threads_of_a_run == 1
    assert read(tmp_path, FULL | {"jobs": 3, "threads": 1}).threads_of_a_run == 1


def test_examples_are_valid_and_name_their_sources(tmp_path: Path) -> None:
    for name in EXAMPLES:
        benchmark = read(tmp_path, example(name))
        assert all(grid.about and len(grid.initialisations) > 1 for grid in benchmark.datasets)
    assert len(read(tmp_path, example("paper")).datasets) == 43


def test_help_and_examples_are_instant() -> None:
    code = "import sys; from nnunetv2_voco.evaluation.benchmark.cli import main\ntry: main(['--example', 'paper'])\n"
    code += "finally: sys.exit(bool({'torch', 'numpy', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
