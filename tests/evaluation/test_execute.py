import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from nnunetv2_voco.evaluation.benchmark import execute as module
from nnunetv2_voco.evaluation.benchmark.execute import execute, last_epoch, mean_dice
from nnunetv2_voco.evaluation.benchmark.run import Machine, Run, write_manifest
from nnunetv2_voco.evaluation.benchmark.slurm import emit
from tests.evaluation.synthetic_results import finish, make_run

FINISH = (
    "from pathlib import Path; f = Path({summary!r}); f.parent.mkdir(parents=True, exist_ok=True); f.write_text('');"
    "print('Mean Validation Dice:  0.8125'); "
)


def script(out: Path, run: Run, body: str) -> list[str]:
    return [sys.executable, "-c", body.replace("FINISH", FINISH.format(summary=str(run.summary(out)))), run.id]


def run_all(out: Path, runs: list[Run], bodies: list[str], monkeypatch: pytest.MonkeyPatch, *, jobs: int = 1) -> tuple:
    commands = {run.id: script(out, run, body) for run, body in zip(runs, bodies, strict=True)}
    monkeypatch.setattr(module, "command_of", lambda out, run: commands[run.id])
    said = io.StringIO()
    failures = execute(out, runs, jobs=jobs, console=Console(file=said, width=160))
    return failures, said.getvalue()


def test_failure_is_told_with_the_end_of_its_log_and_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [make_run(seed=seed) for seed in range(3)]
    bodies = ["FINISH", "print('early\\n' * 50); raise SystemExit('no memory left')", "FINISH"]
    failures, said = run_all(tmp_path, runs, bodies, monkeypatch)
    assert [failure.run.seed for failure in failures] == [1]
    assert failures[0].tail.endswith("no memory left")
    assert len(failures[0].tail.splitlines()) <= 12
    assert "[1/3] scratch_stock_2_0_0  Dice 0.8125" in said
    assert "[2/3] scratch_stock_2_0_1  failed with exit code 1" in said
    assert all(run.is_finished(tmp_path) for run in (runs[0], runs[2]))


def test_run_that_ends_without_a_validation_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures, _ = run_all(tmp_path, [make_run()], ["pass"], monkeypatch)
    assert [failure.code for failure in failures] == [0]


def test_finished_runs_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [make_run(seed=seed) for seed in range(2)]
    finish(tmp_path, runs[0], lambda case, key: 0.5, [0.5])
    before = runs[0].summary(tmp_path).read_text()
    failures, said = run_all(tmp_path, runs, ["FINISH", "FINISH"], monkeypatch)
    assert not failures
    assert "2 runs: 1 finished, 1 to do" in said
    assert runs[0].summary(tmp_path).read_text() == before


def test_jobs_run_at_the_same_time_and_not_more_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = tmp_path / "running"
    running.mkdir()
    body = (
        "import os, time; from pathlib import Path; p = Path(FOLDER) / str(os.getpid()); p.touch(); time.sleep(1.5);"
        "print('AT ONCE', len(list(p.parent.iterdir()))); time.sleep(0.5); p.unlink(); FINISH"
    ).replace("FOLDER", repr(str(running)))
    runs = [make_run(seed=seed) for seed in range(4)]
    run_all(tmp_path, runs, [body] * 4, monkeypatch, jobs=2)
    counts = [int(run.log(tmp_path).read_text().split("AT ONCE ")[1].split()[0]) for run in runs]
    assert max(counts) == 2


def test_interruption_ends_the_runs_at_work_with_their_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
    body = child + f"open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid)); time.sleep(60)"

    def interrupt(seconds: float, sleep: object = time.sleep) -> None:
        if (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt
        sleep(0.05)  # type: ignore[operator]

    monkeypatch.setattr(module.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_all(tmp_path, [make_run()], [body], monkeypatch)
    monkeypatch.undo()
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not is_alive(pid):
            return
        time.sleep(0.05)
    pytest.fail("the child of a run outlived it")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_run_ends_when_the_benchmark_is_killed(tmp_path: Path) -> None:
    code = "import threading, time; from nnunetv2_voco.evaluation.benchmark.train import _end_with_parent as end;"
    code += "threading.Thread(target=end, daemon=True).start(); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, start_new_session=True)
    assert process.poll() is None
    assert process.stdin is not None
    process.stdin.close()  # as the system does when whoever holds the other end dies
    assert process.wait(timeout=20) == -9


LOG = """
2026-01-01 10:00:00: Epoch 7
2026-01-01 10:00:00: Current learning rate: 0.01
2026-01-01 10:00:09: Pseudo dice [np.float32(0.5), np.float32(0.75), nan]
2026-01-01 10:00:09: Epoch time: 9.1 s
2026-01-01 10:00:09: Epoch 8
"""


def test_progress_is_read_from_nnunets_log() -> None:
    assert last_epoch("") == ""
    assert last_epoch(LOG) == "epoch 8, pseudo Dice 0.625"
    assert last_epoch(LOG + "2026: predicting case_1\n") == "validating"
    assert mean_dice(LOG) == ""
    assert mean_dice("x: Validation complete\nx: Mean Validation Dice:  0.36941647147208134\n") == "0.3694"


def test_slurm_array_has_a_task_for_each_run_that_is_not_finished(tmp_path: Path) -> None:
    runs = [make_run(seed=seed) for seed in range(3)]
    out = tmp_path / "out folder"
    out.mkdir()
    machine = Machine(device="cpu", threads=3, workers=0)
    write_manifest(out, runs, machine)
    finish(out, runs[1], lambda case, key: 0.5, [0.5])
    script = emit(tmp_path / "slurm", out, runs, machine, environment={"nnUNet_preprocessed": "/a b", "HOME": "/h"})
    text = script.read_text()
    assert "#SBATCH --array=1-2\n" in text
    assert "#SBATCH --cpus-per-task=3\n" in text
    assert "--gpus" not in text
    assert "export nnUNet_preprocessed='/a b'" in text
    assert "HOME" not in text
    assert (tmp_path / "slurm" / "tasks.txt").read_text().split() == [runs[0].id, runs[2].id]


def test_slurm_task_does_its_run(tmp_path: Path) -> None:
    runs = [make_run()]
    machine = Machine(device="cpu", threads=1, workers=0)
    out = tmp_path / "out"
    out.mkdir()
    write_manifest(out, runs, machine)
    script = emit(tmp_path / "slurm", out, runs, machine, environment={})
    finish(out, runs[0], lambda case, key: 0.5, [0.5])  # meanwhile
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "1"}
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{runs[0].id} is finished\n"), done.stderr
    with pytest.raises(ValueError, match="all 1 runs are finished; there is nothing to submit"):
        emit(tmp_path / "slurm", out, runs, machine, environment={})


def test_second_process_keeps_out_of_a_run_at_work(tmp_path: Path) -> None:
    runs = [make_run()]
    write_manifest(tmp_path, runs, Machine(device="cpu", threads=1, workers=0))
    from nnunetv2_voco.evaluation.benchmark.train import _lock, main

    with _lock(runs[0].folder(tmp_path)), pytest.raises(SystemExit, match="another process is at this run"):
        main([str(tmp_path), runs[0].id])
    with pytest.raises(SystemExit, match="has no run nothing"):
        main([str(tmp_path), "nothing"])
