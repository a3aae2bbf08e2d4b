"""A whole benchmark through nnU-Net's own training and evaluation: killed, continued, reported."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_voco.evaluation.benchmark.run import Run, read_manifest
from tests.evaluation.benchmark_dataset import write_config

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-c", "from nnunetv2_voco.evaluation.benchmark.cli import main; main()"]
TIMEOUT = 1800


def benchmark(file: Path, *options: str) -> subprocess.CompletedProcess:
    command = [*COMMAND, str(file), *options]
    return subprocess.run(command, cwd=file.parent, capture_output=True, text=True, check=False, timeout=TIMEOUT)


def kill_when(process: subprocess.Popen, is_time: object, log: Path) -> None:
    """Kill a benchmark, and let its run notice."""
    for _ in range(10 * TIMEOUT):
        if is_time():  # type: ignore[operator]
            break
        assert process.poll() is None, log.read_text() if log.is_file() else ""
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def wait_until_free(run: Run, out: Path) -> None:
    import fcntl

    with (run.folder(out) / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def test_killed_benchmark_goes_on_and_reports_what_nnunet_measured(
    tmp_path: Path, labelled: Path, checkpoint: Path
) -> None:
    pytest.importorskip("monai", reason='pip install "nnunetv2_voco[benchmark]"')
    initialisations = [{"name": "ct", "checkpoint": "voco_encoder.pth"}]
    file = write_config(tmp_path / "mine.yaml", initialisations=initialisations, labels=[2], epochs=12)
    out = tmp_path / "out"

    process = subprocess.Popen(
        [*COMMAND, str(file)], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(10 * TIMEOUT):
        if (out / "runs.json").is_file():
            break
        time.sleep(0.1)
    (twin, other), _ = read_manifest(out)
    latest = twin.folder(out) / "checkpoint_latest.pth"
    kill_when(process, latest.is_file, twin.log(out))
    wait_until_free(twin, out)
    assert not twin.is_finished(out)

    done = benchmark(file)
    assert done.returncode == 0, done.stdout + done.stderr
    log = twin.log(out).read_text()
    assert log.count("This is the configuration used by this training") == 2
    assert log.count("Epoch 0 \n") + log.count("Epoch 0\n") == 1  # it went on, and did not start again
    assert len(json.loads(twin.curve(out).read_text())["pseudo_dice"]) == 12
    assert "come from the checkpoint" in other.log(out).read_text()
    assert "come from the checkpoint" not in log

    with (out / "results.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 2 * 2 * 2  # runs, cases, classes
    for run in (twin, other):
        for entry in json.loads(run.summary(out).read_text())["metric_per_case"]:
            truth, prediction = (
                sitk.GetArrayFromImage(sitk.ReadImage(entry[f"{kind}_file"])) for kind in ("reference", "prediction")
            )
            for label, name in ((1, "organ"), (2, "tumour")):
                a, b = truth == label, prediction == label
                case = Path(entry["prediction_file"]).name.removesuffix(".nii.gz")
                row = next(r for r in rows if (r["run"], r["case"], r["class"]) == (run.id, case, name))
                assert float(row["dice"]) == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
                assert (row["hd95_mm"] != "") == bool(b.any())
                assert 0 <= float(row["nsd"]) <= 1
    assert np.mean([float(row["dice"]) for row in rows if row["class"] == "organ"]) > 0.5  # it learned something
    assert "2 of 2 runs are finished" in done.stdout
    assert (out / "report.html").is_file()
    assert not (labelled / "splits_final.json").exists()
    assert not any(Path(os.environ["nnUNet_results"]).rglob("*.pth"))  # the user's models are elsewhere

    written = twin.summary(out).stat().st_mtime_ns
    (other.folder(out) / "validation" / "summary.json").unlink()  # a job that was killed in its validation
    weights = (other.folder(out) / "checkpoint_final.pth").stat().st_mtime_ns
    again = benchmark(file)
    assert "2 runs: 1 finished, 1 to do" in again.stdout, again.stdout + again.stderr
    assert twin.summary(out).stat().st_mtime_ns == written
    assert (other.folder(out) / "checkpoint_final.pth").stat().st_mtime_ns == weights
    assert (out / "results.csv").read_text().splitlines()[1:] == [",".join(row.values()) for row in rows]
