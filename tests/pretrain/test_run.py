"""Whole runs on a few phantoms with a minute network."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nnunetv2_voco.checkpoint import load_checkpoint
from nnunetv2_voco.pretrain.phantom_files import write_phantoms

MINUTE = (
    "--spacing 6 --features 4,8,8 --crop-size 16 --steps 12 --batch-size 2 --val-every 6 --save-every 3 --log-every 2 "
    "--warmup-steps 2 --projection-size 32 --lr 1e-3 --device cpu --num-workers 0 -np 1"
).split()
COMMAND = [sys.executable, "-m", "nnunetv2_voco.pretrain"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("input") / "SECRET_PLACE" / "cts"
    write_phantoms(folder, number=5, seed=0, spacing_mm=6.0)
    return folder


def voco_pretrain(*arguments, check=True, prefix=COMMAND, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*prefix, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=300, **options
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def finished(phantoms, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    voco_pretrain(phantoms, "-o", out, *MINUTE)
    return out


def assert_same_weights(out: Path, other: Path) -> None:
    a, b = (torch.load(folder / "voco_state.pth", weights_only=True)["model"] for folder in (out, other))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_leaves_everything_that_is_promised(finished):
    for name in ("voco_encoder.pth", "voco_state.pth", "config.json", "volumes.json", "log.jsonl", "progress.png",
                 "samples.png", "volumes.png", "tensorboard"):  # fmt: skip
        assert (finished / name).exists(), name
    checkpoint = load_checkpoint(finished / "voco_encoder.pth")
    assert all(tensor.is_contiguous() for tensor in checkpoint.weights.values())  # as safetensors wants them
    assert checkpoint.architecture.features == (4, 8, 8)
    assert checkpoint.preprocessing["spacing_mm"] == [6.0, 6.0, 6.0]
    assert checkpoint.pretraining["steps"] == 12
    assert checkpoint.pretraining["num_volumes"] + checkpoint.pretraining["num_validation_volumes"] == 5


def test_no_dicom_tag_and_no_path_above_the_given_folder_is_kept(finished):
    for path in finished.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for secret in (b"SECRET_PLACE", b"PHANTOM^", b"IM0001"):
                assert secret not in content, path.name


@pytest.mark.parametrize("delay_s", [2.0, 4.0, 6.0, 8.0])
def test_a_killed_and_continued_run_ends_with_the_same_weights(phantoms, finished, tmp_path, delay_s):
    out = tmp_path / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*COMMAND, str(phantoms), "-o", str(out), *MINUTE], env=environment, stdout=subprocess.DEVNULL
    )
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    voco_pretrain(phantoms, "-o", out, *MINUTE, "--continue")
    assert_same_weights(out, finished)
    steps = [
        r["step"] for r in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if r["kind"] == "training"
    ]
    assert steps == [2, 4, 6, 8, 10, 12]


def test_a_terminated_run_saves_its_state_and_goes_on(phantoms, finished, tmp_path):
    out = tmp_path / "terminated"
    process = subprocess.Popen(
        [*COMMAND, str(phantoms), "-o", str(out), *MINUTE], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    while not (out / "voco_state.pth").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "--continue" in printed
    voco_pretrain(phantoms, "-o", out, *MINUTE, "--continue")
    assert_same_weights(out, finished)


def test_a_run_is_not_overwritten_and_not_continued_with_other_settings(phantoms, finished):
    before = (finished / "voco_encoder.pth").read_bytes()
    again = voco_pretrain(phantoms, "-o", finished, *MINUTE, check=False)
    assert again.returncode != 0
    assert "--continue" in again.stderr
    other = voco_pretrain(phantoms, "-o", finished, *MINUTE, "--lr", "5e-3", "--continue", check=False)
    assert other.returncode != 0
    assert "lr: 0.001" in other.stderr
    assert "Traceback" not in again.stderr + other.stderr
    assert (finished / "voco_encoder.pth").read_bytes() == before


def test_two_processes_train_as_one_with_the_larger_batch(phantoms, finished, tmp_path):
    out = tmp_path / "two"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29541"]
    halved = [*MINUTE, "--batch-size", "1"]
    voco_pretrain(phantoms, "-o", out, *halved, prefix=[*torchrun, "-m", "nnunetv2_voco.pretrain"])
    one, two = (
        [r for r in map(json.loads, (folder / "log.jsonl").read_text().splitlines()) if r["kind"] == "training"]
        for folder in (finished, out)
    )
    assert len(one) == len(two) == 6
    for term in ("intra", "inter", "reg", "total", "grad_norm"):
        assert two[0][term] == pytest.approx(one[0][term], rel=1e-3)  # later, Adam amplifies rounding
        assert two[-1][term] == pytest.approx(one[-1][term], rel=5e-2)


def test_a_dry_run_writes_nothing_but_the_list_of_volumes(phantoms, tmp_path):
    printed = voco_pretrain(phantoms, "-o", tmp_path / "dry", *MINUTE, "--dry-run").stdout
    assert "Time: on this machine" in printed
    assert [p.name for p in (tmp_path / "dry").iterdir()] == ["volumes.json"]


def test_a_single_volume_is_refused_with_a_count(phantoms, tmp_path):
    done = voco_pretrain(phantoms / "phantom_000.nii.gz", "-o", tmp_path / "one", *MINUTE, check=False)
    assert done.returncode != 0
    assert "1 usable volume" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_answers_within_a_second():
    started = time.monotonic()
    assert "--crop-size" in voco_pretrain("--help").stdout
    assert time.monotonic() - started < 1
