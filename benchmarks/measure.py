"""What the benchmarks share: work timed in processes of its own, contenders in turn, tables of medians with ratios.

The machine may be busy with other things. So contenders take turns within every round, medians are compared, and the
processor time of the work stands beside the time on the clock: contention lengthens the latter more.
"""

import logging
import multiprocessing
import os
import resource
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MB = 1e6


@dataclass(frozen=True)
class Cost:
    """What one piece of work took.

    Attributes:
        seconds: On the clock.
        cpu_seconds: Of processor time in this process, all its threads.
        peak_mb: Most memory held above what was held before, in MB (1e6 bytes).
        result: What the work returned.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float
    result: Any = None


def measured(work: Callable[[], Any]) -> Cost:
    """Run `work` once, here."""
    before = memory_mb("VmRSS")
    _forget_peak()
    cpu, start = _cpu_seconds(), time.perf_counter()
    result = work()
    seconds, cpu = time.perf_counter() - start, _cpu_seconds() - cpu
    return Cost(seconds, cpu, max(0.0, memory_mb("VmHWM") - before), result)


def in_own_process(make_work: Callable[..., Callable[[], Any]], *args: Any, threads: int = 1) -> Cost:
    """Import and set up in a fresh process, unmeasured, then measure there.

    Args:
        make_work: A function of a module; given `args` it returns the work. Only the work is measured.
        args: Handed on; picklable.
        threads: Threads of torch, OpenMP and SimpleITK in that process.
    """
    context = multiprocessing.get_context("spawn")
    with _threads_in_environment(threads), ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_set_up_and_measure, make_work, args, threads).result()


def take_turns(contenders: Mapping[str, Callable[[], Cost]], rounds: int) -> dict[str, list[Cost]]:
    """Measure every contender once in each round, in an order that changes from round to round."""
    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            costs[name].append(contenders[name]())
    return costs


def median(costs: Sequence[Cost], field: str = "cpu_seconds") -> float:
    """Median of one field."""
    return float(np.median([getattr(cost, field) for cost in costs]))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown, first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    print("\n".join([line(header), line(rule), *(line(row) for row in rows)]), flush=True)


def print_comparison(
    costs: Mapping[str, Sequence[Cost]], *, ours: str, unit: float = 1.0, unit_name: str = "s"
) -> dict[str, float]:
    """Print medians of each contender, and how many times as long it takes as `ours`.

    Args:
        costs: Per contender.
        ours: The contender that the others are compared with.
        unit: Divisor of seconds, 1e-3 for milliseconds; may hold a number of items to give the time of one.
        unit_name: Its name in the table's head.

    Returns:
        The ratio of processor times of each contender to `ours`.
    """
    base = {field: median(costs[ours], field) for field in ("seconds", "cpu_seconds")}
    ratios = {name: median(c) / base["cpu_seconds"] for name, c in costs.items()}
    rows = [
        [
            name,
            f"{median(c, 'seconds') / unit:.2f}",
            f"{median(c) / unit:.2f}",
            f"{median(c, 'peak_mb'):.0f}",
            f"{median(c, 'seconds') / base['seconds']:.2f}",
            f"{ratios[name]:.2f}",
        ]
        for name, c in costs.items()
    ]
    print_table(("", f"clock {unit_name}", f"CPU {unit_name}", "peak MB", "× clock", "× CPU"), rows)
    return ratios


def describe_machine() -> str:
    """One line on processor, load and versions."""
    import torch

    load = os.getloadavg()[0]
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    return f"{os.cpu_count()} × {cpu or 'CPU'}, torch {torch.__version__}, load {load:.1f} at the start"


def memory_mb(field: str) -> float:
    """Memory of this process: "VmRSS" now, "VmHWM" at its peak; off Linux, always the peak since the start."""
    for line in _lines("/proc/self/status"):
        if line.startswith(field):
            return int(line.split()[1]) * 1024 / MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MB  # bytes on macOS


def _set_up_and_measure(make_work: Callable[..., Callable[[], Any]], args: tuple, threads: int) -> Cost:
    import SimpleITK as sitk
    import torch

    threading.Thread(target=_leave_with_parent, daemon=True).start()
    logging.getLogger().setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # of the peers' own making
    torch.set_num_threads(threads)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    return measured(make_work(*args))


def _leave_with_parent() -> None:
    """End this process when the script that started it was killed; it would hold its memory for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _threads_in_environment:
    """Sets the variables that libraries read when they are loaded, for processes started meanwhile."""

    def __init__(self, threads: int) -> None:
        self.values = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS"), str(threads))

    def __enter__(self) -> None:
        self.before = {name: os.environ.get(name) for name in self.values}
        os.environ.update(self.values)

    def __exit__(self, *_: object) -> None:
        for name, value in self.before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _forget_peak() -> None:
    """Let VmHWM start again from now, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
