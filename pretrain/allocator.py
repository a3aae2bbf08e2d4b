"""How the C library treats memory that is freed."""

import ctypes
import re
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h
_NEVER = -1

_LIMITS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""Files of a control group, as containers and SLURM jobs are, with its limit and use, of both versions."""


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for later instead of returning it to the system.

    A training step on a CPU allocates gigabytes of feature maps and frees them. By default each of them is mapped anew
    from the system, which clears it page by page: up to a third of the step's processor time. Numbers do not change,
    but glibc reuses aligned memory with gaps, so more of it is held.

    Returns:
        Whether the C library offers this, as glibc does; elsewhere nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))


def has_room_to_keep(system: Path = Path("/"), *, processes: int = 1) -> bool:
    """Whether there is as much memory left for each process as it has held at its peak.

    Kept memory is up to 1.6 times what a step needs, so that this is more than it can take.

    Args:
        system: Root of the file systems `proc` and `sys`.
        processes: Processes of this machine that want to keep memory.

    Returns:
        False also where the system does not say how much memory it has.
    """
    left = _memory_left(system)
    return left is not None and left > peak_memory() * processes


def peak_memory() -> float:
    """Bytes that this process has held at most; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def _memory_left(system: Path) -> float | None:
    """Bytes that can still be had: of the machine, and of the control groups of the process."""
    try:
        of_machine = re.search(r"MemAvailable:\s*(\d+) kB", (system / "proc/meminfo").read_text())
        groups = re.findall(r"^\d+:(?:.*\bmemory\b.*)?:(/.*)$", (system / "proc/self/cgroup").read_text(), re.M)
    except OSError:
        return None
    left = [1024.0 * int(of_machine[1])] if of_machine else []
    for root in (system / "sys/fs/cgroup", system / "sys/fs/cgroup/memory"):
        for group in {root / name.lstrip("/") for name in groups} | {root}:
            for folder in (group, *group.parents):
                if folder.is_relative_to(root):
                    left += _left_of_group(folder)
    return min(left, default=None)


def _left_of_group(folder: Path) -> list[float]:
    """What the limit of one control group leaves; files that only lie in memory until it is needed do not count."""
    for names in _LIMITS:
        try:
            limit, used, parts = ((folder / name).read_text() for name in (*names, "memory.stat"))
        except OSError:
            continue
        files = re.search(r"^(?:total_)?inactive_file (\d+)$", parts, re.M)
        return [] if limit.strip() == "max" else [float(limit) - float(used) + (float(files[1]) if files else 0.0)]
    return []
