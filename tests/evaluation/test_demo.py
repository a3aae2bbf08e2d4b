import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_voco.evaluation.demo.cli import main, prepare_folder
from nnunetv2_voco.evaluation.demo.commands import CommandFailed, command, folded
from nnunetv2_voco.evaluation.demo.lock import locked
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
    assert "one seed" in text
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
    write_small_plans(
        folder, features=settings.features, patch_size=settings.patch_size, batch_size=settings.batch_size
    )
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


def test_caller_gets_its_signal_handlers_back(tmp_path: Path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_steps_use_public_commands_only(tmp_path: Path):
    words = {each.words[0] for step in Story(tmp_path).steps() for each in step.commands}
    assert all(word.startswith(("voco_", "nnUNetv2_")) for word in words)


def test_a_trial_run_claims_nothing(rng):
    scratch = rng.uniform(0.4, 0.6, (2, 3))
    text, tone = verdict(outcome(scratch + 0.1, scratch), SMALL)
    assert "mean nothing" in text
    assert "helped" not in text
    assert tone != "good"


def test_long_commands_are_folded_to_what_a_shell_reads_as_the_same():
    line = str(command("voco_pretrain", "a folder", "-o", "out", *("--option-of-some-length", "1,2,3") * 8))
    folded_line = folded(line, width=80)
    assert max(map(len, folded_line.splitlines())) <= 80
    assert "\n    --option-of-some-length 1,2,3" in folded_line
    script = f"printf '%s\\n' {folded_line}"
    heard = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout.splitlines()
    assert heard == shlex.split(line)
    assert folded("voco_demo out") == "voco_demo out"


def test_report_shows_commands_of_an_uninterrupted_run_and_no_path_of_this_machine(tmp_path: Path):
    story = Story(tmp_path / "demo")
    fresh = story.script()
    story.encoder.parent.mkdir(parents=True)
    (story.encoder.parent / "config.json").touch()
    story.model(VOCO_PLANS).mkdir(parents=True)
    (story.model(VOCO_PLANS) / "checkpoint_best.pth").touch()
    assert story.script() == fresh
    assert str(tmp_path) not in fresh
    continued = {step.name: step.goes_on[0].words[-1] for step in story.steps() if step.goes_on}
    assert continued == {"pretrain": "--continue", "train_VoCo": "--c"}


def test_pretraining_that_a_signal_ended_is_not_taken_for_done(tmp_path: Path):
    story = Story(tmp_path)
    story.encoder.parent.mkdir(parents=True)
    (story.encoder.parent / "config.json").write_text('{"steps": 6}')
    after = next(step.after for step in story.steps() if step.name == "pretrain")
    log = story.encoder.parent / "log.jsonl"
    log.write_text('{"step": 3}\n{"step": 6}\n')
    after()
    log.write_text('{"step": 3}\n')
    with pytest.raises(CommandFailed, match="before its 6 steps"):
        after()


def test_two_demos_never_work_in_one_folder(tmp_path: Path):
    pytest.importorskip("fcntl")
    with locked(tmp_path / "lock"), pytest.raises(ValueError, match="is at work here"), locked(tmp_path / "lock"):
        pass
    with locked(tmp_path / "lock") as descriptors:
        orphan = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=descriptors)
    try:  # the demo is gone, its command is not
        with pytest.raises(ValueError, match="is at work here"), locked(tmp_path / "lock"):
            pass
    finally:
        orphan.communicate(b"\n")
    with locked(tmp_path / "lock"):
        pass


def test_a_command_ends_with_the_demo_that_started_it(tmp_path: Path):
    file = tmp_path / "pid"
    sleeper = f"import os, time; open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = (
        "import signal; from pathlib import Path; from nnunetv2_voco.evaluation.demo.commands import command\n"
        "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        f"command('python', '-c', {sleeper!r}).run(Path({str(tmp_path / 'log')!r}), {{}}, folder=Path('.'))"
    )
    demo = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (file.exists() and file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    demo.terminate()
    assert demo.wait(30) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)


def test_what_a_command_printed_last_is_told_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nnunetv2_voco.evaluation.demo.commands.SAY_EVERY_SECONDS", 0.1)
    told: list[str] = []
    talking = command("python", "-c", "import time; print('bar 1\\rbar 2', end=''); time.sleep(1)")
    talking.run(tmp_path / "log", {}, folder=tmp_path, say=told.append)
    assert told[-1] == "bar 2"
    assert len(told) == len(set(told))


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
    for heading in ("Learning curves", "Dice by label", "What was loaded", "figures mean nothing"):
        assert heading in page
    assert "http" not in page.replace("http://www.w3.org", "")
    (out / "done" / "name_weights.json").unlink()
    again = run()
    assert again.count("done before") == 6
    assert again.splitlines()[-2:] == first.splitlines()[-2:]
