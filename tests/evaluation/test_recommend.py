import json
from dataclasses import replace
from pathlib import Path

import pytest

from nnunetv2_voco.evaluation import guideline
from nnunetv2_voco.evaluation.guideline import (
    Facts,
    recommend_recipe,
    recommend_schedule,
    recommend_size,
    recommend_steps,
)
from nnunetv2_voco.evaluation.recommend import main, read_facts

BASE = Facts(
    cases=60, classes=5, voxels=20_000_000, spacing_mm=(1.5, 1.5, 1.5), size_ratio=1.5, is_ct=True, unlabelled=0
)


def size(**changes) -> str:
    return recommend_size(replace(BASE, **changes)).value


def test_more_cases_more_classes_and_more_diversity_never_shrink_the_model() -> None:
    for name, values in (("cases", (40, 120, 600, 5000)), ("classes", (1, 12, 50)), ("size_ratio", (1.0, 5.0, 50.0))):
        for fixed in ({}, {"cases": 600}, {"classes": 50}, {"cases": 600, "classes": 50, "size_ratio": 5.0}):
            sizes = [guideline.SIZES.index(size(**(fixed | {name: value}))) for value in values]
            assert sizes == sorted(sizes)


def test_sizes_span_from_small_to_huge() -> None:
    assert size(cases=20, classes=1, voxels=500_000) == "S"
    assert size() == "B"
    assert size(cases=200, classes=15) == "L"
    assert size(cases=2000, classes=104, size_ratio=6.0) == "H"


def test_larger_is_not_always_better() -> None:
    few = recommend_size(replace(BASE, cases=10, classes=104, size_ratio=9.0))
    assert few.value == "B"
    assert any(rule.startswith("few-cases (at most B)") for rule in few.rules)
    small_pool = recommend_size(replace(BASE, cases=600, classes=104, unlabelled=100))
    assert small_pool.value == "L"
    assert any(rule.startswith("small-pool (at most L)") for rule in small_pool.rules)
    assert size(cases=600, classes=104, unlabelled=400) == "H"


def test_every_advice_names_the_rules_that_fired() -> None:
    for facts in (BASE, replace(BASE, cases=5), replace(BASE, unlabelled=10_000), replace(BASE, is_ct=False)):
        for recommend in (recommend_size, recommend_recipe, recommend_steps, recommend_schedule):
            advice = recommend(facts)
            assert advice.rules
            assert all(": " in rule for rule in advice.rules)


@pytest.mark.parametrize(
    ("cases", "unlabelled", "recipe"), [(10, 5000, "ssl"), (60, 0, "ssl"), (60, 30, "semi"), (60, 60, "omni")]
)
def test_recipe_follows_labels_and_pool(cases: int, unlabelled: int, recipe: str) -> None:
    assert recommend_recipe(replace(BASE, cases=cases, unlabelled=unlabelled)).value == recipe


def test_steps_meet_the_papers_two_schedules() -> None:
    for volumes, steps in ((10_000, 250_000), (160_000, 2_000_000)):
        assert int(recommend_steps(replace(BASE, cases=0, unlabelled=volumes)).value) == steps
    assert int(recommend_steps(replace(BASE, cases=1)).value) == guideline.LEAST_STEPS


def write_fingerprint(folder: Path, **changes) -> None:
    content = {
        "spacings": [[2.0, 1.0, 1.0], [4.0, 1.0, 1.0], [3.0, 1.0, 1.0]],
        "shapes_after_crop": [[10, 100, 100], [20, 100, 100], [15, 100, 100]],
    }
    (folder / "dataset_fingerprint.json").write_text(json.dumps(content | changes))


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from tests.nnunetv2_voco.planned_dataset import make_dataset

    folder = make_dataset(tmp_path, monkeypatch)
    write_fingerprint(folder)
    return folder


def test_facts_are_those_of_the_fingerprint(dataset: Path) -> None:
    description = json.loads((dataset / "dataset.json").read_text())
    description["labels"]["ignore"] = 3
    (dataset / "dataset.json").write_text(json.dumps(description))
    facts = read_facts(dataset, unlabelled=7)
    assert (facts.cases, facts.classes, facts.voxels, facts.spacing_mm) == (3, 2, 150_000, (3.0, 1.0, 1.0))
    assert facts.size_ratio == pytest.approx((450_000 + 0.8 * 350_000) / (200_000 + 0.2 * 250_000))
    assert facts.is_ct
    assert facts.unlabelled == 7


def test_command_says_what_why_and_what_to_run(dataset: Path, capsys: pytest.CaptureFixture) -> None:
    main(["-d", "999", "--unlabelled", "50"])
    output = capsys.readouterr().out
    for text in (
        "999: 3 labelled cases, 50 volumes without labels, 2 classes",
        "size: S (plain network",
        "small-volumes (S): 2 classes",
        "recipe: ssl",
        "few-labels: 3 labelled cases",
        "voco_pretrain CTS -o OUT -d 999 --scale S --steps 5000",
        "voco_plan -d 999 -pc OUT/voco_encoder.pth -n mine --scale S",
        "-tr nnUNetTrainerVoCo_150ep -p nnUNetPlans_VoCo_mine",
        "-tr nnUNetTrainerVoCoScratch_150ep -p nnUNetPlans_VoCo_mine",
    ):
        assert text in output


def test_missing_or_empty_fingerprint_is_one_line(dataset: Path) -> None:
    write_fingerprint(dataset, spacings=[])
    with pytest.raises(SystemExit, match="voco_recommend: .*holds no spacings"):
        main(["-d", "999"])
    (dataset / "dataset_fingerprint.json").unlink()
    with pytest.raises(SystemExit, match="run nnUNetv2_extract_fingerprint -d Dataset999_Tiny"):
        main(["-d", "999"])
