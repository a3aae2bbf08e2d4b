import json
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunetv2_voco.pretrain.labelled.sets import (
    IGNORE_LABEL,
    LabelledData,
    differing_preprocessing,
    read_labelled_data,
)
from tests.nnunetv2_voco.planned_dataset import plans, write_plans
from tests.pretrain.labelled_datasets import FIRST, LABELS, SECOND, make_labelled_datasets, write_dataset

BACKGROUND = {"background": 0}


@pytest.fixture
def preprocessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_labelled_datasets(tmp_path, monkeypatch)


def read(*datasets: str, fold: int | str = 0, configuration: str = "3d_fullres", plans: str = "nnUNetPlans"):
    return read_labelled_data(datasets or (FIRST, SECOND), configuration=configuration, plans=plans, fold=fold)


def change(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_classes_are_the_names_of_all_datasets_in_their_first_spelling(preprocessed):
    data = read()
    assert data.class_names == ("Left_Kidney", "liver", "spleen", "brain")
    assert data.num_classes == 5
    assert [one.name for one in data.sets] == [FIRST, SECOND]
    assert read(SECOND, FIRST).class_names == ("brain", "LIVER", "left kidney", "spleen")


def test_labels_of_one_name_become_one_class(preprocessed):
    first, second = read().sets
    assert first.united == {0: 0, 1: 1, 2: 2, 3: 3}
    assert second.united == {0: 0, 1: 4, 2: 2, 4: 1, 5: IGNORE_LABEL}


def test_only_the_classes_that_a_dataset_names_are_annotated_in_it(preprocessed):
    first, second = read().sets
    assert first.annotated == (True, True, True, True, False)
    assert second.annotated == (True, True, True, False, True)


def test_numbers_name_datasets_as_well(preprocessed):
    assert read("101", "102") == read()


def test_json_keeps_everything(preprocessed):
    data = read()
    assert LabelledData.from_json(json.loads(json.dumps(data.to_json()))) == data


def test_folds_are_those_that_nnunet_would_make_and_nothing_is_written(preprocessed):
    before = sorted(preprocessed.rglob("*"))
    expected = generate_crossval_split([f"case_{i}" for i in range(5)], seed=12345, n_splits=5)
    for fold in (0, "3"):
        for one in read(fold=fold).sets:
            assert one.training == tuple(expected[int(fold)]["train"])
            assert one.validation == tuple(expected[int(fold)]["val"])
    assert sorted(preprocessed.rglob("*")) == before


def test_a_split_that_is_there_is_taken(preprocessed):
    split = [{"train": ["case_4", "case_1"], "val": ["case_0"]}]
    (preprocessed / SECOND / "splits_final.json").write_text(json.dumps(split))
    second = read().sets[1]
    assert (second.training, second.validation) == (("case_4", "case_1"), ("case_0",))


def test_fold_all_trains_and_validates_on_all_cases(preprocessed):
    for one in read(fold="all").sets:
        assert one.training == one.validation == tuple(f"case_{i}" for i in range(5))


def test_no_difference_of_equal_preprocessing(preprocessed):
    assert differing_preprocessing([FIRST, SECOND], configuration="3d_fullres", plans="nnUNetPlans") == []


def test_differences_to_the_first_dataset_are_told(preprocessed):
    content = json.loads((preprocessed / SECOND / "nnUNetPlans.json").read_text())
    content["configurations"]["3d_fullres"]["spacing"] = [2.5, 1.0, 1.0]
    content["transpose_forward"] = [2, 0, 1]
    content["foreground_intensity_properties_per_channel"]["0"]["std"] = 100.0
    write_plans(preprocessed / SECOND, content)
    spacing, axes, statistics = differing_preprocessing(["101", "102"], configuration="3d_fullres", plans="nnUNetPlans")
    assert spacing == f"{SECOND}: spacing in mm 2.5, 1, 1, but 1, 1, 1 in {FIRST}"
    assert axes == f"{SECOND}: order of axes 2, 0, 1, but 0, 1, 2 in {FIRST}"
    assert "40, 100, -900, 300, but 40, 200, -900, 300 in" in statistics
    content["configurations"]["3d_fullres"]["normalization_schemes"] = ["ZScoreNormalization"]
    write_plans(preprocessed / SECOND, content)
    lines = differing_preprocessing([FIRST, SECOND], configuration="3d_fullres", plans="nnUNetPlans")
    assert f"{SECOND}: normalisation ZScoreNormalization, but CTNormalization in {FIRST}" in lines


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"datasets": ("77",)}, "--labelled 77: Could not find a dataset with the ID 77"),
        ({"datasets": ("Trunk",)}, "--labelled Trunk: dataset_name_or_id was a string and did not start with"),
        ({"datasets": ("Dataset077_No",)}, "Dataset077_No has no plans nnUNetPlans in nnUNet_preprocessed; there are"),
        ({"datasets": (FIRST, "101")}, f"--labelled {FIRST} 101: {FIRST} is named twice; name it once"),
        ({"plans": "other"}, f"{FIRST} has no plans other in nnUNet_preprocessed; there are: nnUNetPlans"),
        ({"configuration": "4d"}, f"nnUNetPlans of {FIRST} have no configuration 4d; there are: 2d, 3d_lowres"),
        ({"configuration": "2d"}, f"configuration 2d of {FIRST} is 2D"),
        ({"configuration": "3d_cascade_fullres"}, f"of {FIRST} needs the predictions of 3d_lowres; take 3d_fullres"),
        ({"fold": 5}, f"{FIRST}: there is no fold 5; the split has folds 0 to 4"),
        ({"fold": -1}, "fold -1: no such fold; name it by its number, from 0, or take \"all\""),
        ({"fold": "most"}, "fold most: no such fold"),
    ],
)  # fmt: skip
def test_errors_of_what_was_asked_for(preprocessed, arguments, text):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        read(*arguments.pop("datasets", ()), **arguments)
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"channel_names": {"0": "CT", "1": "PET"}},
            "dataset.json: 2 input channels; pre-training takes images of one",
        ),
        (
            {"labels": BACKGROUND | {"whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]},
            "dataset.json: whole are regions of several labels, which cannot be united",
        ),
        ({"labels": BACKGROUND}, "dataset.json: no foreground labels; there is nothing to learn from"),
        ({"labels": BACKGROUND | {"ignore": 1}}, "dataset.json: no foreground labels"),
        (
            {"labels": BACKGROUND | {"lung_left": 1, "Lung Left": 2}},
            "labels lung_left, Lung Left have the same name; give each its own",
        ),
        ({"labels": BACKGROUND | {"a": 1, "b": 1}}, "dataset.json: labels a, b have the same value; give each its own"),
    ],
)
def test_errors_of_a_dataset(preprocessed, changes, text):
    change(preprocessed / SECOND / "dataset.json", **changes)
    with pytest.raises(ValueError, match="dataset.json") as error:
        read()
    assert SECOND in str(error.value)
    assert text in str(error.value)


def test_error_without_nnunets_folders(monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    with pytest.raises(ValueError, match="--labelled needs nnU-Net's folders: set the environment variable"):
        read()


def test_error_without_description(preprocessed):
    (preprocessed / FIRST / "dataset.json").unlink()
    with pytest.raises(ValueError, match="dataset.json: missing; run nnUNetv2_plan_and_preprocess"):
        read()


def test_error_without_cases_names_the_command_that_makes_them(preprocessed):
    write_dataset(preprocessed / "Dataset007_Empty", LABELS[FIRST])
    write_plans(preprocessed / "Dataset007_Empty", plans() | {"plans_name": "Mine"})
    with pytest.raises(ValueError, match="run nnUNetv2_preprocess -d 7 -plans_name Mine -c 3d_fullres$"):
        read("7", plans="Mine")


def test_error_of_cases_that_are_in_the_split_alone(preprocessed):
    split = [{"train": ["case_0", "gone"], "val": ["case_1"]}]
    (preprocessed / FIRST / "splits_final.json").write_text(json.dumps(split))
    with pytest.raises(ValueError, match=r"1 cases of fold 0 are not pre-processed \(gone\); run nnUNetv2_preprocess"):
        read()


def test_error_of_too_few_cases_to_split(tmp_path, monkeypatch):
    make_labelled_datasets(tmp_path, monkeypatch, cases=3)
    with pytest.raises(ValueError, match=f'{FIRST}: 3 cases, too few for nnU-Net\'s five folds; take fold "all"'):
        read()
    assert np.array_equal(read(fold="all").sets[0].training, ["case_0", "case_1", "case_2"])
