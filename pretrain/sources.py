"""What `voco_preprocess` notes of the volumes' names, apart from the cache proper, which holds none.

    CACHE/sources/<id>.jsonl.gz         the volumes found below some folders, listed once for all parts
                  names/<id>.jsonl.gz   which volume of a list became which key, or why it did not

Paths are kept below the given folders only, as they are named in tables. Without `sources/` a cache serves as well;
its volumes then have keys for names.
"""

import contextlib
import gzip
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nnunetv2_voco.atomic import write_atomically
from nnunetv2_voco.pretrain.discover import Discovery, SkippedFile, VolumeSource, discover

HEARTBEAT_S = 2.0
"""How often the process that lists the folders shows that it is alive."""

SILENCE_S = 60.0
"""After so long without a sign of life another process takes over."""

BEGUN = ""
"""In place of a volume's name: work on the list has begun."""


@dataclass(frozen=True, kw_only=True)
class SourceList:
    """The volumes found below some folders.

    Attributes:
        file: Where they are listed.
        number: How many there are.
        skipped: How many files or folders are no volumes.
    """

    file: Path
    number: int
    skipped: int

    @property
    def name(self) -> str:
        """What the list is called in `sources/`."""
        return self.file.name.split(".")[0]

    @classmethod
    def open(cls, file: Path) -> "SourceList":
        """Read a list's head.

        Raises:
            ValueError: If it is damaged.
        """
        try:
            head = next(_lines(file))
            return cls(file=file, number=head["sources"], skipped=head["skipped"])
        except (OSError, EOFError, ValueError, KeyError, TypeError, StopIteration):
            raise ValueError(f"{file}: the list of volumes is damaged; make it again by --list") from None

    def sources(self, folders: Sequence[str | os.PathLike], *, part: int = 0, parts: int = 1) -> list[VolumeSource]:
        """Return every `parts`-th volume from number `part` on; `folders` are those the list was made for."""
        bases, found = _bases(folders), []
        for number, text in enumerate(_texts(self.file), start=-1):
            if 0 <= number < self.number and number % parts == part:
                name, file_format, base, folder, files = json.loads(text)
                paths = tuple(bases[base] / folder / file for file in files)
                found.append(VolumeSource(name=name, files=paths, file_format=file_format))
        return found

    def names(self) -> list[str]:
        """Return the names of all volumes, in order."""
        return [entry[0] for number, entry in enumerate(_lines(self.file), start=-1) if 0 <= number < self.number]

    def skipped_files(self) -> tuple[SkippedFile, ...]:
        """Return what is no volume."""
        rest = (entry for number, entry in enumerate(_lines(self.file), start=-1) if number >= self.number)
        return tuple(SkippedFile(name=name, reason=reason) for name, reason in rest)


class Fate(NamedTuple):
    """What became of one volume of a list at one target: its key in the cache, or the reason why it has none yet."""

    target: str
    list_name: str
    name: str
    file_format: str
    key: str
    reason: str | None


def list_sources(
    root: Path,
    folders: Sequence[str | os.PathLike],
    *,
    modality: str,
    afresh: bool,
    say: Callable[[str], None] = lambda text: None,
) -> SourceList:
    """Find the volumes below some folders, or read the list that was made of them before.

    Of several processes one lists and the others wait for it; when it dies another one takes over.

    Args:
        root: The cache.
        folders: Where to look.
        modality: As in `discover`.
        afresh: Whether to look again although there is a list.
        say: Called with what happens meanwhile.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    absolute = [os.path.abspath(folder) for folder in folders]
    digest = hashlib.sha256(json.dumps([absolute, modality]).encode()).hexdigest()[:16]
    file = root / "sources" / f"{digest}.jsonl.gz"
    if afresh or not file.exists():
        for folder in folders:
            if not os.path.exists(folder):
                raise FileNotFoundError(f"{os.fspath(folder)}: no such folder; expected a folder of volumes")
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.stat().st_mtime_ns if file.exists() else None

        def listed() -> bool:
            return (file.stat().st_mtime_ns if file.exists() else None) != before

        with _taking_turns(file.parent / f"{digest}.lock", listed, say):
            if not listed():
                _write_list(file, discover(folders, modality=modality), folders)
    return SourceList.open(file)


def note_fates(root: Path, fates: Sequence[Fate]) -> None:
    """Note what became of volumes; any number of processes may do so at a time."""
    if fates:
        folder = root / "sources" / "names"
        folder.mkdir(parents=True, exist_ok=True)
        lines = sorted(json.dumps(fate) for fate in fates)
        name = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
        _write_lines(folder / f"{name}.jsonl.gz", lines)


def load_fates(root: Path) -> list[Fate]:
    """Read what was noted, the oldest first; lists made for other parts or runs included."""
    fates: list[Fate] = []
    files = []
    for file in (root / "sources" / "names").glob("*.jsonl.gz"):
        with contextlib.suppress(FileNotFoundError):  # merged meanwhile
            files.append((file.stat().st_mtime_ns, file))
    for _, file in sorted(files):
        with contextlib.suppress(FileNotFoundError):
            fates += [Fate(*entry) for entry in _lines(file) if len(entry) == len(Fate._fields)]
    return fates


def merge_fates(root: Path) -> list[Fate]:
    """Join what was noted into one file: of each volume's key the latest fate."""
    files = sorted((root / "sources" / "names").glob("*.jsonl.gz"))
    latest = list({(fate.target, fate.list_name, fate.name, fate.key): fate for fate in load_fates(root)}.values())
    if len(files) > 1:
        note_fates(root, latest)
        lines = "\n".join(sorted(json.dumps(fate) for fate in latest))
        kept = hashlib.sha256(lines.encode()).hexdigest()[:16]
        for file in files:
            if file.name != f"{kept}.jsonl.gz":
                file.unlink(missing_ok=True)
    return latest


def load_names(root: Path) -> dict[str, tuple[str, str]]:
    """Name and format of the volumes with each key, as far as they were noted."""
    return {fate.key: (fate.name, fate.file_format) for fate in load_fates(root) if fate.key}


def _write_list(file: Path, found: Discovery, folders: Sequence[str | os.PathLike]) -> None:
    bases = _bases(folders)
    entries: list[Any] = [{"sources": len(found.sources), "skipped": len(found.skipped)}]
    for source in found.sources:
        folder = Path(os.path.commonpath([path.parent for path in source.files]))
        base = next(i for i, base in enumerate(bases) if folder.is_relative_to(base))
        names = [path.relative_to(folder).as_posix() for path in source.files]
        entries.append([source.name, source.file_format, base, folder.relative_to(bases[base]).as_posix(), names])
    entries += [[skipped.name, skipped.reason] for skipped in found.skipped]
    _write_lines(file, (json.dumps(entry) for entry in entries))


def _bases(folders: Sequence[str | os.PathLike]) -> list[Path]:
    """Absolute folders; of a volume that was given itself, its folder."""
    paths = [Path(os.path.abspath(folder)) for folder in folders]
    return [path if path.is_dir() else path.parent for path in paths]


def _write_lines(file: Path, lines: Iterable[str]) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as stream:
            for line in lines:
                stream.write(line.encode() + b"\n")

    write_atomically(file, write)


def _texts(file: Path) -> Iterator[str]:
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        yield from stream


def _lines(file: Path) -> Iterator[Any]:
    return (json.loads(text) for text in _texts(file))


@contextlib.contextmanager
def _taking_turns(lock: Path, finished: Callable[[], bool], say: Callable[[str], None]) -> Iterator[None]:
    """Wait until no other living process holds `lock`, then hold it; or until the work is finished.

    It saves work, no more: were two processes to hold it, they would write the same file.
    """
    seen, since, told = None, time.monotonic(), False
    while not finished():
        with contextlib.suppress(FileExistsError):
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
            break
        with contextlib.suppress(FileNotFoundError):
            if (beat := lock.stat().st_mtime_ns) != seen:  # no clocks of two machines are compared
                seen, since = beat, time.monotonic()
            elif time.monotonic() - since > SILENCE_S:
                lock.unlink()
        if not told:
            say("Another process is listing the folders; waiting for it …")
            told = True
        time.sleep(HEARTBEAT_S / 4)
    done = threading.Event()

    def beat_until_done() -> None:
        while not done.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):
                os.utime(lock)

    beating = threading.Thread(target=beat_until_done, daemon=True)
    beating.start()
    try:
        yield
    finally:
        done.set()
        beating.join()
        lock.unlink(missing_ok=True)
