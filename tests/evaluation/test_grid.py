import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_voco.evaluation.benchmark.config import ConfigError, read_benchmark
from nnunetv2_voco.evaluation.benchmark.grid import PlannedRun, plan_runs
from nnunetv2_voco.evaluation.benchmark.prepare import check_trainers, check_transfers, write_runs
from nnunetv2_voco.source import digest
from tests.evaluation.benchmark_dataset import write_config
from tests.nnunetv2_voco.planned_dataset import NAME, plans, write_checkpoint, write_plans

pytestmark = pytest.mark.filterwarnings(r"ignore:.torch.cuda.amp:FutureWarning", "ignore:.*GradScaler")


def planned(folder: Path, **settings: Any) -> list[PlannedRun]:
    settings.setdefault("initialisations", [{"name": "ct", "checkpoint": "voco_encoder.pth"}])
    return plan_runs(read_benchmark(write_config(folder / "mine.yaml", **settings)))


def experiment(item: PlannedRun) -> dict[str, Any]:
    return item.plans["nnunetv2_voco_experiment"]


def test_every_combination_is_a_run_of_its_own(tmp_path: Path, labelled: Path, checkpoint: Path) -> None:
    runs = planned(tmp_path, seeds=[0, 1, 2], folds=[0, 1], schedules=["stock", "warmup"], labels=["50%", 1, "100%"])
    assert len(runs) == len({item.run.id for item in runs}) == 3 * 2 * 2 * 3 * 2
    assert [item.run.seed for item in runs] == sorted(item.run.seed for item in runs)
    assert {item.run.trainer for item in runs} == {"nnUNetTrainerVoCo", "nnUNetTrainerVoCo_warmup"}


def test_plans_differ_from_the_users_in_the_two_blocks_alone(tmp_path: Path, labelled: Path, checkpoint: Path) -> None:
    stock = json.loads((labelled / "nnUNetPlans.json").read_text())
    for item in planned(tmp_path):
        content = dict(item.plans)
        source, block = content.pop("nnunetv2_voco", None), content.pop("nnunetv2_voco_experiment")
        assert content == stock | {"plans_name": item.run.plans}
        assert block["from_scratch"] == (source is None) == (item.run.initialisation == "scratch")
        if source:
            assert (source["checkpoint"], source["sha256"]) == (str(checkpoint), digest(checkpoint))


def test_run_and_twin_share_cases_and_seed(tmp_path: Path, labelled: Path, checkpoint: Path) -> None:
    for twin, other in zip(*[iter(planned(tmp_path, seeds=[0, 1]))] * 2, strict=True):
        assert (twin.run.initialisation, other.run.initialisation) == ("scratch", "ct")
        assert experiment(twin) | {"from_scratch": False} == experiment(other)


def test_control_differs_from_the_twin_by_its_initial_values_alone(tmp_path: Path, labelled: Path) -> None:
    twin, control, other = planned(
        tmp_path, seeds=[0], labels=["50%"], initialisations=[{"name": "c1", "random": 1}, {"name": "c2", "random": 2}]
    )
    assert [item.run.initialisation for item in (twin, control, other)] == ["scratch", "c1", "c2"]
    assert experiment(control) == experiment(twin) | {"initial_draw": 1}
    assert experiment(other) == experiment(twin) | {"initial_draw": 2}
    assert [item.run.initial_draw for item in (twin, control, other)] == [0, 1, 2]
    assert not any("nnunetv2_voco" in item.plans for item in (twin, control, other))


def test_cases_are_those_of_nnunets_split_which_is_not_written(
    tmp_path: Path, labelled: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = planned(tmp_path, folds=[0, 3], labels=["100%"], validation_cases=None)
    assert not (labelled / "splits_final.json").exists()
    for item in runs:
        trainer = get_trainer_from_args(NAME, "3d_fullres", item.run.fold, "nnUNetTrainerVoCo")
        training, validation = nnUNetTrainer.do_split(trainer)
        assert (sorted(training), sorted(validation)) == (
            experiment(item)["training_cases"], experiment(item)["validation_cases"],
        )  # fmt: skip


def test_users_split_is_followed_and_left_as_it_is(tmp_path: Path, labelled: Path, checkpoint: Path) -> None:
    file = labelled / "splits_final.json"
    file.write_text(json.dumps([{"train": ["case_1", "case_2"], "val": ["case_9"]}]))
    before = file.read_bytes()
    item = planned(tmp_path, labels=["all"], validation_cases=None)[0]
    assert (experiment(item)["training_cases"], experiment(item)["validation_cases"]) == (
        ["case_1", "case_2"],
        ["case_9"],
    )
    assert file.read_bytes() == before
    with pytest.raises(ConfigError, match="there is no fold 1; the split has folds 0 to 0"):
        planned(tmp_path, folds=[1])
    file.write_text(json.dumps([{"train": ["case_1", "gone"], "val": ["case_9"]}]))
    with pytest.raises(ConfigError, match=r"1 cases of fold 0 are not pre-processed .*gone"):
        planned(tmp_path)


def test_seeds_draw_their_own_subsets_unless_one_is_fixed(tmp_path: Path, labelled: Path, checkpoint: Path) -> None:
    def subsets(**settings: Any) -> set[tuple[str, ...]]:
        return {tuple(experiment(item)["training_cases"]) for item in planned(tmp_path, labels=[2], **settings)}

    assert len(subsets(seeds=[0, 1, 2, 3])) > 1
    assert len(subsets(seeds=[0, 1, 2, 3], subset_seed=7)) == 1


def test_each_seed_may_have_an_encoder_of_its_own(tmp_path: Path, labelled: Path, checkpoint: Path) -> None:
    for name in ("0_1", "0_2", "1_1", "1_2"):
        shutil.copy(checkpoint, tmp_path / f"{name}.pth")
    initialisations = [{"name": "own", "checkpoint": "{seed}_{labels}.pth"}]
    runs = planned(tmp_path, seeds=[0, 1], labels=[1, 2], initialisations=initialisations)
    used = [item.plans["nnunetv2_voco"]["checkpoint"] for item in runs if item.run.initialisation == "own"]
    assert [Path(file).stem for file in used] == ["0_1", "0_2", "1_1", "1_2"]


def test_run_is_named_by_what_determines_its_result(tmp_path: Path, labelled: Path, checkpoint: Path) -> None:
    def ids(**settings: Any) -> list[str]:
        return [item.run.id for item in planned(tmp_path, labels=[1], **settings)]

    before = ids()
    moved = tmp_path / "elsewhere.pth"
    shutil.copy(checkpoint, moved)
    assert ids(initialisations=[{"name": "ct", "checkpoint": "elsewhere.pth"}]) == before
    assert ids(seeds=[0, 1])[:2] == before
    assert not set(ids(epochs=4)) & set(before)
    write_checkpoint(checkpoint)
    assert [new == old for new, old in zip(ids(), before, strict=True)] == [True, False]  # the twin stays finished
    content = json.loads((labelled / "nnUNetPlans.json").read_text())
    content["configurations"]["3d_fullres"]["batch_size"] = 3
    write_plans(labelled, content)
    assert not set(ids()) & set(before)


def test_amounts_that_mean_the_same_cases_are_one_run(tmp_path: Path, labelled: Path, checkpoint: Path) -> None:
    assert len(planned(tmp_path, labels=[1, "5%", "10%"])) == 2


def test_only_plans_are_added_to_the_data_set(tmp_path: Path, labelled: Path, checkpoint: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in labelled.rglob("*")}
    runs = planned(tmp_path)
    benchmark = read_benchmark(tmp_path / "mine.yaml")
    write_runs(benchmark, runs, file=tmp_path / "mine.yaml")
    assert (benchmark.out / "benchmark.yaml").read_text() == (tmp_path / "mine.yaml").read_text()
    after = {file: file.stat().st_mtime_ns for file in labelled.rglob("*")}
    assert {file.name for file in after.keys() - before.keys()} == {f"{item.run.plans}.json" for item in runs}
    assert {file: after[file] for file in before if file != labelled} == {
        f: t for f, t in before.items() if f != labelled
    }
    for item in runs:
        assert load_json(str(labelled / f"{item.run.plans}.json")) == item.plans


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"datasets": [998]}, "dataset 998: not among those in .*; run nnUNetv2_plan_and_preprocess -d 998 first"),
        ({"datasets": [998], "skip_missing": True}, "none of the data sets is pre-processed"),
        ({"plans": "nnUNetResEncUNetLPlans"}, "no such plans; Dataset999_Tiny has nnUNetPlans"),
        ({"configurations": ["2d"]}, "2d is flat; only 3D configurations"),
        ({"configurations": ["3d_cascade_fullres"]}, "needs the predictions of another stage"),
        ({"configurations": ["3d_fulres"]}, "no configuration 3d_fulres; the plans have 2d, 3d_lowres"),
        ({"labels": [9]}, "9 labelled cases are asked for; the fold has 8 training cases"),
        ({"validation_cases": 3}, "validation_cases: 3 are asked for; fold 0 of Dataset999_Tiny has 2"),
        ({"initialisations": [{"name": "a", "checkpoint": "gone.pth"}]}, r"gone.pth: no such file"),
    ],
)
def test_what_a_data_set_does_not_have_is_named(
    settings: dict[str, Any], message: str, tmp_path: Path, labelled: Path, checkpoint: Path
) -> None:
    with pytest.raises((ConfigError, ValueError, FileNotFoundError), match=message):
        planned(tmp_path, **settings)


def test_data_sets_that_are_not_there_are_left_out_if_asked(tmp_path: Path, labelled: Path, checkpoint: Path) -> None:
    file = write_config(tmp_path / "mine.yaml", datasets=[998, NAME], skip_missing=True)
    said: list[str] = []
    assert {item.run.dataset for item in plan_runs(read_benchmark(file), said.append)} == {NAME}
    assert [text.split(":")[:2] for text in said] == [["left out", " dataset 998"]]


def test_missing_true_labels_are_named(tmp_path: Path, labelled: Path, checkpoint: Path) -> None:
    shutil.rmtree(labelled / "gt_segmentations")
    with pytest.raises(ConfigError, match=r"gt_segmentations: missing; run nnUNetv2_plan_and_preprocess"):
        planned(tmp_path)


def test_schedule_without_a_trainer_is_found_before_anything_runs(
    tmp_path: Path, labelled: Path, checkpoint: Path
) -> None:
    check_trainers(planned(tmp_path, schedules=["stock", "sawtooth_150ep"]))
    with pytest.raises(ConfigError, match="schedules: 'warmpu': nnU-Net finds no trainer nnUNetTrainerVoCo_warmpu"):
        check_trainers(planned(tmp_path, schedules=["warmpu"]))


def test_weights_that_do_not_fit_are_found_before_anything_runs(
    tmp_path: Path, labelled: Path, checkpoint: Path
) -> None:
    said: list[str] = []
    check_transfers(planned(tmp_path, seeds=[0, 1]), said.append)
    account, note = said
    assert "(100.0%) come from the checkpoint" in account
    assert "spacing 1 × 1 × 1 mm in the plan, 1.5 × 1 × 1 mm in pre-training" in note
    from nnunetv2_voco.encoder import plain_architecture

    write_checkpoint(checkpoint, plain_architecture((1, 2, 2)))
    with pytest.raises(ConfigError, match="Dataset999_Tiny 3d_fullres from ct: "):
        check_transfers(planned(tmp_path), said.append)


def test_block_of_voco_plan_in_the_users_plans_is_left_out(tmp_path: Path, labelled: Path, checkpoint: Path) -> None:
    stock = plans() | {"plans_name": "nnUNetPlans_VoCo_x", "nnunetv2_voco": {"checkpoint": "other.pth"}}
    write_plans(labelled, stock)
    twin = planned(tmp_path, plans="nnUNetPlans_VoCo_x")[0]
    assert "nnunetv2_voco" not in twin.plans
