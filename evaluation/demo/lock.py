"""One demo at a time in a folder, also after one was killed and a command that it had started still runs."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(file: Path) -> Iterator[tuple[int, ...]]:
    """Hold a lock; yields the descriptors that commands inherit, so that theirs is the lock, too, while they run.

    Where the system knows no such locks (Windows), nothing is locked and nothing is yielded.

    Raises:
        ValueError: If somebody else holds it.
    """
    try:
        import fcntl
    except ImportError:
        yield ()
        return
    with file.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{file.parents[1]}: another voco_demo, or a command started by one that was killed, is at work here; "
                "wait for it or end it"
            ) from None
        yield (handle.fileno(),)
