"""Running a public command as a user would type it, with its output in a log."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TAIL = 25
"""Lines of the log that are shown when a command fails."""


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

    def run(self, log: Path, environment: Mapping[str, str], *, folder: Path) -> None:
        """Run it and append what it prints to `log`.

        Args:
            log: Its folder must exist.
            environment: Variables beside those of this process.
            folder: Where to run it.

        Raises:
            CommandFailed: If it ends with an error, or is not installed.
        """
        program = Path(sys.executable).with_name(self.words[0])
        words = [str(program) if program.exists() else self.words[0], *self.words[1:]]
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {self}\n")
            file.flush()
            try:
                code = subprocess.run(
                    words, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, cwd=folder, check=False,
                    env={**os.environ, **environment},
                ).returncode  # fmt: skip
            except FileNotFoundError:
                raise CommandFailed(f"{self.words[0]} is not installed beside {sys.executable}") from None
        if code:
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
            raise CommandFailed("\n".join([f"{self}", f"ended with code {code}; the end of {log}:", *tail]))


def command(*words: object) -> Command:
    """Make a command of words and numbers."""
    return Command(tuple(str(word) for word in words))


def exports(environment: Mapping[str, str]) -> Sequence[str]:
    """Return the lines that set these variables in a shell."""
    return [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
