import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_voco.evaluation.demo.cli import main, prepare_folder
from nnunetv2_voco.evaluation.demo.commands import CommandFailed, command
from nnunetv2_voco.evaluation.demo.outcome import Outcome
from nnunetv2_voco.evaluation.demo.overlay import SCALE, colour, overlay, richest_slice
from nnunetv2_voco.evaluation.demo.report import verdict
from nnunetv2_voco.evaluation.demo.settings import FULL, SMALL
from nnunetv2_voco.evaluation.demo.small_plans import (
    SMALL_PLANS,
    TWIN_PLANS,
    VOCO_PLANS,
    write_experiment,
    write_small_plans,
)
from nnunetv2_voco.evaluation.demo.story import Story
from nnunetv2_voco.trainers.experiment import Experiment
from tests.nnunetv2_voco.planned_dataset import make_dataset


def outcome(voco: np.ndarray, scratch: np.ndarray) -> Outcome:
    return Outcome(
        organs=("kidney_right", "kidney_left", "liver"),
        look_alikes=(("kidney_right", "kidney_left"),),
        dice={"VoCo": voco, "scratch": scratch},
        curves={"VoCo": [0.1], "scratch": [0.1]},
        transfer={},
        pretraining={},
    )


@pytest.mark.parametrize(
    ("gain", "word", "tone"), [(0.1, "helped", "good"), (-0.1, "hurt", "bad"), (0.0, "No clear", "")]
)
def test_verdict_follows_the_interval_of_the_paired_difference(rng, gain: float, word: str, tone: str):
    scratch = rng.uniform(0.4, 0.6, (8, 3))
    text, found = verdict(outcome(scratch + gain + rng.normal(0, 0.01, (8, 3)), scratch), FULL)
    assert word in text
    assert "One seed" in text
    assert found == tone


def test_difference_is_that_of_the_means_over_cases(rng):
    voco, scratch = rng.random((2, 6, 3))
    found = outcome(voco, scratch).difference
    assert found.value == pytest.approx((voco - scratch).mean())
    assert found.low < found.value < found.high


def test_absent_organs_do_not_count(rng):
    scratch = rng.random((4, 3))
    scratch[1, 2] = np.nan
    assert outcome(scratch, scratch).mean("VoCo", ["liver"]) == pytest.approx(np.nanmean(scratch[:, 2]))


def test_slice_shows_most_organs_and_labels_keep_their_colours():
    labels = np.zeros((6, 5, 4), np.uint8)
    labels[:, 1], labels[2, 3, 1], labels[3, 3, 2] = 1, 1, 2
    assert richest_slice(labels) == 3
    image = np.full(labels.shape, -1024)
    picture = overlay(image, labels, y=3, spacing_mm=(2.0, 1.0))
    assert picture.shape == (6 * 2 * SCALE, 4 * SCALE, 3)
    assert picture.dtype == np.uint8
    upright = picture[:: 2 * SCALE, ::SCALE][::-1]  # the head is up, so rows count from above
    for label in (1, 2):
        z, x = np.argwhere(labels[:, 3] == label)[0]
        np.testing.assert_allclose(upright[z, x] / 255 / 0.55, colour(label), atol=0.01)
    assert (upright[0] == 0).all()


def test_small_plans_keep_everything_but_network_and_patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = make_dataset(tmp_path, monkeypatch)
    settings = replace(SMALL, features=(4, 8))
    write_small_plans(folder, settings)
    before, after = (json.loads((folder / f"{name}.json").read_text()) for name in ("nnUNetPlans", SMALL_PLANS))
    old, new = (plans["configurations"]["3d_fullres"] for plans in (before, after))
    assert new["architecture"]["arch_kwargs"]["features_per_stage"] == [4, 8]
    assert new["architecture"]["arch_kwargs"]["n_stages"] == 2
    assert new["patch_size"] == [16, 16, 16]
    for key in ("spacing", "data_identifier", "normalization_schemes"):
        assert new[key] == old[key]


def test_twins_differ_by_nothing_but_their_start(tmp_path: Path):
    (tmp_path / f"{VOCO_PLANS}.json").write_text(json.dumps({"plans_name": VOCO_PLANS, "configurations": {}}))
    write_experiment(tmp_path, FULL)
    voco, twin = (json.loads((tmp_path / f"{name}.json").read_text()) for name in (VOCO_PLANS, TWIN_PLANS))
    experiments = [Experiment.from_plans(plans) for plans in (voco, twin)]
    assert experiments[1] == replace(experiments[0], from_scratch=True)
    assert not experiments[0].from_scratch
    assert len(experiments[0].training_cases) == FULL.labelled


def test_failing_command_shows_the_end_of_its_log(tmp_path: Path):
    failing = command("python", "-c", "print('what went wrong'); raise SystemExit(3)")
    with pytest.raises(CommandFailed, match="code 3.*\n.*what went wrong"):
        failing.run(tmp_path / "log", {}, folder=tmp_path)
    with pytest.raises(CommandFailed, match="voco_nothing is not installed"):
        command("voco_nothing").run(tmp_path / "log", {}, folder=tmp_path)


def test_folder_of_something_else_or_of_another_size_is_refused(tmp_path: Path):
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(SystemExit, match=r"thesis\.docx.*name a new folder"):
        main([str(tmp_path)])
    prepare_folder(tmp_path / "new", "full")
    prepare_folder(tmp_path / "new", "full")
    with pytest.raises(ValueError, match="another size"):
        prepare_folder(tmp_path / "new", "small")


def test_steps_use_public_commands_only(tmp_path: Path):
    words = {each.words[0] for step in Story(tmp_path).steps() for each in step.commands}
    assert all(word.startswith(("voco_", "nnUNetv2_")) for word in words)


@pytest.mark.slow
def test_whole_story_is_told_and_goes_on_where_it_was(tmp_path: Path):
    out = tmp_path / "demo"
    code = "from nnunetv2_voco.evaluation.demo.cli import main; main()"

    def run() -> str:
        return subprocess.run(
            [sys.executable, "-c", code, str(out), "--small"], check=True, text=True, stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        ).stdout  # fmt: skip

    first = run()
    assert "$ voco_pretrain" in first
    assert "$ nnUNet_n_proc_DA=0 nnUNetv2_train" in first
    page = (out / "report.html").read_text()
    for heading in ("Learning curves", "Dice by organ", "What was loaded", "these figures mean nothing"):
        assert heading in page
    assert "http" not in page.replace("http://www.w3.org", "")
    (out / "done" / "evaluate.json").unlink()
    again = run()
    assert again.count("done before") == 6
    assert again.splitlines()[-2:] == first.splitlines()[-2:]
