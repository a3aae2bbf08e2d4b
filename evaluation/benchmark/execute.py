"""Running what is not finished, some at a time, each in a process of its own, and saying how it goes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from nnunetv2_voco.evaluation.benchmark.run import Run

POLL_SECONDS = 0.3
TAIL_BYTES = 4000
TAIL_LINES = 12
"""Lines of a failed run's log that are shown."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A run that ended with an error.

    Attributes:
        run: The run.
        code: Exit code, negative for a signal.
        tail: The end of its log.
    """

    run: Run
    code: int
    tail: str


@dataclass
class _Job:
    run: Run
    process: subprocess.Popen
    started: float
    task: TaskID | None = None


def command_of(out: Path, run: Run) -> list[str]:
    """The command that does one run."""
    return [sys.executable, "-m", "nnunetv2_voco.evaluation.benchmark.train", str(out), run.id]


def execute(out: Path, runs: Sequence[Run], *, jobs: int, console: Console) -> list[Failure]:
    """Do all runs that are not finished; one that fails does not stop the others.

    Args:
        out: Folder of the benchmark, with its list of runs.
        runs: The runs.
        jobs: How many at the same time.
        console: Where a person reads.

    Returns:
        The runs that failed.

    Raises:
        KeyboardInterrupt: When a person stops it; the runs at work are ended first, and go on next time.
    """
    pending = [run for run in runs if not run.is_finished(out)]
    console.print(f"{len(runs)} runs: {len(runs) - len(pending)} finished, {len(pending)} to do, {jobs} at a time")
    (out / "logs").mkdir(parents=True, exist_ok=True)
    at_work: list[_Job] = []
    failures: list[Failure] = []
    with _Watch(console, total=len(runs), done=len(runs) - len(pending)) as watch:
        try:
            while pending or at_work:
                while pending and len(at_work) < jobs:
                    at_work.append(watch.begin(_start(out, pending.pop(0))))
                time.sleep(POLL_SECONDS)
                for job in list(at_work):
                    if job.process.poll() is None:
                        watch.update(job, _tail(job.run.log(out)))
                        continue
                    at_work.remove(job)
                    failure = _outcome(out, job)
                    if failure is not None:
                        failures.append(failure)
                    watch.end(job, failure, _tail(job.run.log(out)))
        finally:
            for job in at_work:
                _stop(job.process)
    return failures


def last_epoch(log: str) -> str:
    """Say where a run is, from the end of its log; empty if nothing is known yet."""
    epochs = re.findall(r"\bEpoch (\d+)\s*$", log, flags=re.MULTILINE)
    dice = re.findall(r"Pseudo dice \[(.*?)\]", log)
    if "predicting " in log:
        return "validating"
    words = [f"epoch {epochs[-1]}"] if epochs else []
    if dice:
        values = [float(value) for value in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?(?!\d*\()", dice[-1])]
        if values:
            words.append(f"pseudo Dice {sum(values) / len(values):.3f}")
    return ", ".join(words)


def mean_dice(log: str) -> str:
    """Return the Dice that nnU-Net prints at the end, as it stands there; empty if there is none."""
    found = re.findall(r"Mean Validation Dice:\s+([\d.]+|nan)", log)
    return f"{float(found[-1]):.4f}" if found else ""


def _start(out: Path, run: Run) -> _Job:
    with run.log(out).open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command_of(out, run), "--end-with-parent"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    return _Job(run, process, time.monotonic())


def _outcome(out: Path, job: _Job) -> Failure | None:
    code = job.process.returncode
    if job.process.stdin is not None:
        job.process.stdin.close()
    if code == 0 and job.run.is_finished(out):
        return None
    lines = _tail(job.run.log(out)).splitlines()[-TAIL_LINES:]
    return Failure(run=job.run, code=code, tail="\n".join(lines))


def _stop(process: subprocess.Popen) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _tail(file: Path) -> str:
    if not file.is_file():
        return ""
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - TAIL_BYTES))
        return log.read().decode("utf-8", errors="replace")


class _Watch:
    """A bar for all runs and a line for each at work on a terminal; else one line for each that ends."""

    def __init__(self, console: Console, *, total: int, done: int) -> None:
        self._console = console
        self._ended, self._total = done, total
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=console, transient=True)
        self._all = self._bar.add_task("runs", total=total, completed=done, note="")

    def __enter__(self) -> "_Watch":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, job: _Job) -> _Job:
        job.task = self._bar.add_task(f"  {job.run.id}", total=None, note="starting")
        return job

    def update(self, job: _Job, log: str) -> None:
        assert job.task is not None
        self._bar.update(job.task, note=last_epoch(log) or "starting")

    def end(self, job: _Job, failure: Failure | None, log: str) -> None:
        assert job.task is not None
        self._bar.remove_task(job.task)
        self._ended += 1
        self._bar.update(self._all, completed=self._ended)
        seconds = time.monotonic() - job.started
        said = f"Dice {mean_dice(log)}" if failure is None else f"[red]failed[/red] with exit code {failure.code}"
        self._console.print(f"[{self._ended}/{self._total}] {job.run.id}  {said}  {seconds:.0f} s", highlight=False)
