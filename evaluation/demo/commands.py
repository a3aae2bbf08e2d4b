"""Running a public command as a user would type it, with its output in a log, and ending it when the demo ends."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TAIL = 25
"""Lines of the log that are shown when a command fails."""
POLL_SECONDS, SAY_EVERY_SECONDS, GRACE_SECONDS = 0.1, 20.0, 30.0
"""How often a command is looked after, how often it is said where it is, how long it may take to end when asked to."""


class CommandFailed(RuntimeError):
    """A command ended with an error; the text holds the end of its log."""


@dataclass(frozen=True)
class Command:
    """A command line.

    Attributes:
        words: The command and its arguments.
    """

    words: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.words)

    def run(
        self,
        log: Path,
        environment: Mapping[str, str],
        *,
        folder: Path,
        say: Callable[[str], None] = lambda line: None,
        keep_open: Sequence[int] = (),
    ) -> None:
        """Run it and append what it prints to `log`. It ends, with its workers, when this process is asked to end.

        Args:
            log: Its folder must exist.
            environment: Variables beside those of this process.
            folder: Where to run it.
            say: Is told from time to time what the command printed last.
            keep_open: File descriptors that it inherits, such as that of a lock.

        Raises:
            CommandFailed: If it ends with an error, or is not installed.
        """
        program = Path(sys.executable).with_name(self.words[0])
        words = [str(program) if program.exists() else self.words[0], *self.words[1:]]
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {self}\n")
            file.flush()
            try:
                process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, cwd=folder,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **environment}, pass_fds=tuple(keep_open),
                    start_new_session=True,
                )  # fmt: skip
            except FileNotFoundError:
                raise CommandFailed(f"{self.words[0]} is not installed beside {sys.executable}") from None
            try:
                _watch(process, log, say)
            finally:
                _end(process)
        if process.returncode:
            tail = _lines(log)[-TAIL:]
            raise CommandFailed(
                "\n".join([f"{self}", f"ended with code {process.returncode}; the end of {log}:", *tail])
            )


def command(*words: object) -> Command:
    """Make a command of words and numbers."""
    return Command(tuple(str(word) for word in words))


def exports(environment: Mapping[str, str]) -> Sequence[str]:
    """Return the lines that set these variables in a shell; a `$PWD` at a value's start is the shell's to fill in."""
    return [
        f'export {name}="{value}"' if value.startswith("$PWD/") else f"export {name}={shlex.quote(value)}"
        for name, value in environment.items()
    ]


def folded(line: str, *, width: int = 96) -> str:
    """Break a long command before options, so that it is read without scrolling and still can be copied."""
    first, *options = re.split(r" (?=-)", line)  # an option stays with its values
    rows = [first]
    for option in options:
        if len(rows[-1]) + 1 + len(option) > width - 2:
            rows[-1] += " \\"
            rows.append("   ")
        rows[-1] += f" {option}"
    return "\n".join(rows)


def _watch(process: subprocess.Popen, log: Path, say: Callable[[str], None]) -> None:
    """Wait for the end; say what was printed last whenever it is something new."""
    said, at = "", time.monotonic()
    while process.poll() is None:
        time.sleep(POLL_SECONDS)
        if time.monotonic() - at >= SAY_EVERY_SECONDS:
            at = time.monotonic()
            latest = next((line.strip() for line in reversed(_lines(log)) if line.strip()), "")
            if latest not in (said, f"$ {log}"):
                said = latest
                say(latest[:110])


def _end(process: subprocess.Popen) -> None:
    """Ask a process that still runs to end, so that it can save its state; then end it with all its workers."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def _lines(log: Path) -> list[str]:
    """Return the lines of a log; of a bar that was drawn again and again, the last state."""
    text = log.read_text(encoding="utf-8", errors="replace")
    return [line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n") if line]
