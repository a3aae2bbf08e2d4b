"""Writing files so that a reader, or a run killed half-way, never meets a half-written one."""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ABANDONED_S = 24 * 3600
"""A temporary file that nobody wrote to for so long has lost its writer, were it a suspended job on a cluster."""


def write_atomically(path: str | os.PathLike, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it to `path` in one step.

    Args:
        path: The file to create or replace. Its folder must exist.
        write: Is called with the temporary path. When it raises, `path` is left as it was.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        _flush_to_disk(temporary)
        temporary.chmod(0o666 & ~_UMASK)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Remove the temporary files that writers killed half-way left in `folder`; nobody may be writing there."""
    for temporary in Path(folder).glob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def remove_abandoned(folder: str | os.PathLike) -> None:
    """Remove the temporary files of writers killed a day ago or more in `folder` and below; others may be writing."""
    for temporary in Path(folder).rglob(".*.tmp"):
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's in a shared folder
            if time.time() - temporary.stat().st_mtime > ABANDONED_S:
                temporary.unlink()


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write `content` as indented JSON, atomically."""
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _flush_to_disk(path: Path) -> None:
    with path.open("r+b") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())


def _read_umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


_UMASK = _read_umask()
