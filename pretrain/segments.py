"""Segments of an index: files of columns that are written once and never changed.

    INDEX/<id>.npz           columns of equal length, a row per volume, sorted by content
          <id>.histograms    the rows' histograms, each compressed on its own, one after the other

A segment's name follows from its rows: the same volumes give the same files, in whatever order and by whomever they
were added. The columns are numpy's own file format, which needs no package that the project does not have, and are
read as a whole: 160,000 volumes are some 20 MB. The histograms, ten times as large, are read one by one when a run
settles its normalisation.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from nnunetv2_voco.atomic import write_atomically

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Segment:
    """One file of columns and where its histograms lie.

    Attributes:
        columns: Arrays of equal length; "mended" and "reason" hold numbers of texts, −1 for none.
        texts: Repairs, as JSON, and reasons.
        histograms: File of the histograms.
    """

    columns: Columns
    texts: tuple[str, ...]
    histograms: Path


def segment_files(folder: Path) -> list[Path]:
    """Files of columns, the oldest first."""
    files = []
    for file in folder.glob("*.npz"):
        try:
            files.append((file.stat().st_mtime_ns, file))
        except FileNotFoundError:  # merged by another process just now
            continue
    return [file for _, file in sorted(files)]


def load_segment(file: Path) -> Segment:
    """Read a segment's columns.

    Raises:
        FileNotFoundError: If it was merged away meanwhile.
        ValueError: If it is damaged.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            columns = {name: stored[name] for name in stored.files}
        texts = tuple(json.loads(columns.pop("texts").tobytes()))
    except (BadZipFile, KeyError, ValueError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{file}: this part of the cache's index is damaged ({error}); remove it and run voco_preprocess --merge"
        ) from None
    return Segment(columns, texts, file.with_suffix(".histograms"))


def store_segment(folder: Path, columns: Columns, texts: Sequence[str], histograms: Iterable[bytes]) -> Path:
    """Write a segment, its histograms first; return the file of its columns."""
    used = np.unique(np.concatenate([columns["mended"], columns["reason"]]))
    texts = [texts[code] for code in used[used >= 0]]
    columns = dict(columns)
    for name in ("mended", "reason"):
        columns[name] = np.where(columns[name] < 0, -1, np.searchsorted(used[used >= 0], columns[name])).astype(
            np.int32
        )
    columns["texts"] = np.frombuffer(json.dumps(texts).encode(), np.uint8)
    columns = {name: _narrow(values) for name, values in columns.items()}
    digest = hashlib.sha256()
    for name in sorted(columns):
        digest.update(name.encode())
        digest.update(columns[name].tobytes())
    file = folder / f"{digest.hexdigest()[:24]}.npz"

    def write_histograms(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            stream.writelines(histograms)

    def write_columns(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez(stream, **columns)

    write_atomically(file.with_suffix(".histograms"), write_histograms)
    write_atomically(file, write_columns)
    return file


def _narrow(values: np.ndarray) -> np.ndarray:
    """Byte strings as long as the longest, whatever was joined before, so that equal rows are equal files."""
    if values.dtype.kind != "S":
        return values
    return values.astype(f"S{max(1, int(np.char.str_len(values).max()))}")


def union(segments: Sequence[Segment]) -> tuple[list[str], Columns]:
    """Join segments: one row per key, that of the last segment, sorted by content and key."""
    texts = sorted({text for segment in segments for text in segment.texts})
    code, parts = {text: number for number, text in enumerate(texts)}, []
    for number, segment in enumerate(segments):
        columns, size = dict(segment.columns), segment.columns["histogram_size"]
        codes = np.array([*(code[text] for text in segment.texts), -1], np.int32)  # −1 stays −1
        columns["mended"], columns["reason"] = codes[columns["mended"]], codes[columns["reason"]]
        columns["histogram_start"] = np.cumsum(size) - size
        columns["segment"] = np.full(len(size), number, np.int32)
        parts.append(columns)
    if len(parts) == 1:
        return texts, parts[0]
    if not parts:
        return [], {"key": np.empty(0, "S1")}
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    _, first = np.unique(joined["key"][::-1], return_index=True)  # of equal keys the first, so the last in order
    kept = len(joined["key"]) - 1 - first
    kept = kept[np.lexsort((joined["key"][kept], joined["content"][kept]))]
    return texts, {name: values[kept] for name, values in joined.items()}


def pack(histogram: Sequence[int]) -> bytes:
    """Compress counts, their bytes sorted by significance."""
    return zlib.compress(np.asarray(histogram, "<u4").view(np.uint8).reshape(-1, 4).T.tobytes(), 6)


def unpack(packed: bytes) -> np.ndarray:
    """Return the counts that `pack` compressed."""
    planes = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(4, -1)
    return np.ascontiguousarray(planes.T).view("<u4")[:, 0]
