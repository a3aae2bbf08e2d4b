"""What a run writes down while it trains: one JSON line per record, TensorBoard, and lines or a bar for a person."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nnunetv2_voco.atomic import write_atomically


class RunLog:
    """Writes the records of a run, from the process of rank 0 only.

    Args:
        folder: The run's folder.
        first_step: Step at which this process takes over; later records of an interrupted run are removed.
        steps: Steps in all.
        console: Where a person reads.
    """

    def __init__(self, folder: Path, *, first_step: int, steps: int, console: Console) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "log.jsonl"
        keep_records_until(self.path, first_step)
        self._file = self.path.open("a", encoding="utf-8")
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1 if first_step else None)
        self._console = console
        self._bar = _progress_bar(console) if console.is_terminal else None
        self._task = self._bar.add_task("", total=steps, completed=first_step, note="") if self._bar else None
        self._steps = steps
        self._started, self._first_step = time.monotonic(), first_step

    def __enter__(self) -> "RunLog":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        self._file.close()
        self._writer.close()

    def record(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Write one record: a line of JSON, and its numbers to TensorBoard under `kind`; null if not finite."""
        values = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        self._file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self._writer.add_scalar(f"{kind}/{name}", value, step)

    def advance(self, step: int, note: str) -> None:
        """Move the progress bar, or print a line where there is no terminal."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, note=note)
        else:
            done = step - self._first_step
            left = (time.monotonic() - self._started) / max(1, done) * (self._steps - step)
            self._console.print(f"step {step}/{self._steps}  {note}  {duration(left)} left", highlight=False)

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        self._console.print(text, highlight=False)


def _progress_bar(console: Console) -> Progress:
    return Progress(
        BarColumn(bar_width=30), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        console=console,
    )  # fmt: skip


def keep_records_until(path: Path, step: int) -> None:
    """Drop the records after `step`, which a continued run writes again, and a line cut off by a kill."""
    if not path.exists():
        return
    kept = [line for line in read_records(path) if line["step"] <= step and (step or line["step"])]
    text = "".join(json.dumps(record) + "\n" for record in kept)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read a log; an unfinished last line is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def duration(seconds: float) -> str:
    """Say a time in the two largest units."""
    seconds = int(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} days {hours % 24} h"


def make_console() -> Console:
    """Return the console; wide enough for tables where the output goes to a file."""
    return Console() if sys.stdout.isatty() else Console(width=160)


@contextlib.contextmanager
def progress_bar(console: Console, title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal, nothing elsewhere; yields what is to be called with done and total."""
    if not console.is_terminal:
        console.print(f"{title} …", highlight=False)
        yield lambda done, total: None
        return
    columns = (TextColumn(title), BarColumn(bar_width=30), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
