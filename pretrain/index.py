"""The index of a cache: all records in columns, so that no run opens, stats or lists a file per volume.

Any number of processes on any number of machines may add their segments (see `segments.py`). The index is the union
of what is there; of rows with one key, that of the newest segment counts. Merging writes the union as one more segment
and only then removes its parts: nobody ever misses a volume, and a merge that is killed, or meets another one, leaves
rows twice at worst.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from nnunetv2_voco.pretrain.record import Record
from nnunetv2_voco.pretrain.segments import Segment, load_segment, pack, segment_files, store_segment, union, unpack

ATTEMPTS = 10
"""How often the index is read anew when another process merges it at that moment."""


class VolumeIndex:
    """The records of a cache, by row and by key.

    Args:
        folder: Where its segments lie.
        segments: The segments, the newest last.
    """

    def __init__(self, folder: Path, segments: Sequence[Segment]) -> None:
        self.folder, self._files = folder, tuple(segment.histograms for segment in segments)
        self.texts, self.columns = union(segments)
        self._by_key = np.argsort(self.columns["key"])
        self._sorted_keys = self.columns["key"][self._by_key]

    @classmethod
    def open(cls, folder: Path) -> "VolumeIndex":
        """Read the index; empty where there is none.

        Raises:
            ValueError: If a segment is damaged.
        """
        for attempt in range(ATTEMPTS):
            try:
                return cls(folder, [load_segment(path) for path in segment_files(folder)])
            except FileNotFoundError:  # merged by another process after it was listed
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError

    def __len__(self) -> int:
        return len(self.columns["key"])

    @property
    def merged(self) -> bool:
        """Whether the index is one segment or none."""
        return len(self._files) <= 1

    def rows(self, keys: Iterable[str]) -> np.ndarray:
        """Row of each key, int64 (keys,); −1 where there is none."""
        wanted = np.array([key.encode() for key in keys], dtype=np.bytes_)
        if not len(self) or not len(wanted):
            return np.full(len(wanted), -1)
        place = np.searchsorted(self._sorted_keys, wanted).clip(max=len(self) - 1)
        return np.where(self._sorted_keys[place] == wanted, self._by_key[place], -1)

    def record(self, row: int) -> Record:
        """Return a row as a record, without its histogram."""
        column = {name: values[row] for name, values in self.columns.items()}
        key = column["key"].decode()
        if column["reason"] >= 0:
            return Record(key=key, reason=self.texts[column["reason"]])
        original_shape, original_spacing_mm = column["original_shape"], column["original_spacing_mm"]
        return Record(
            key=key,
            shape=tuple(column["shape"].tolist()),
            content=column["content"].decode(),
            fill=int(column["fill"]),
            mended=tuple(json.loads(self.texts[column["mended"]])) if column["mended"] >= 0 else (),
            original_shape=tuple(original_shape.tolist()) if original_shape.any() else (),
            original_spacing_mm=tuple(original_spacing_mm.tolist()) if original_spacing_mm.any() else (),
            bytes=int(column["bytes"]),
            digest=column["digest"].decode(),
        )

    def histograms(self, keys: Sequence[str]) -> Iterator[np.ndarray]:
        """Yield the histogram of each key that has one, in the order of the keys; only one is held in memory.

        Raises:
            KeyError: If a key is not in the index.
        """
        rows = self.rows(keys)
        if (rows < 0).any():
            raise KeyError(keys[int(np.argmin(rows))])
        with contextlib.ExitStack() as stack:
            try:
                streams = [stack.enter_context(file.open("rb")) for file in self._files]
            except FileNotFoundError:  # merged by another process since the index was read
                yield from VolumeIndex.open(self.folder).histograms(keys)
                return
            for row in rows:
                if size := int(self.columns["histogram_size"][row]):
                    stream = streams[self.columns["segment"][row]]
                    stream.seek(self.columns["histogram_start"][row])
                    yield unpack(stream.read(size))


class IndexedRecords(Sequence[Record]):
    """Some records of an index, made when they are asked for: a hundred bytes a volume instead of a thousand.

    Args:
        index: The index.
        rows: Which of its rows.
    """

    def __init__(self, index: VolumeIndex, rows: np.ndarray) -> None:
        self._index, self._rows = index, rows

    @overload
    def __getitem__(self, number: int) -> Record: ...
    @overload
    def __getitem__(self, number: slice) -> "IndexedRecords": ...
    def __getitem__(self, number: int | slice) -> "Record | IndexedRecords":
        if isinstance(number, slice):
            return IndexedRecords(self._index, self._rows[number])
        return self._index.record(int(self._rows[number]))

    def __len__(self) -> int:
        return len(self._rows)


def add_segment(folder: Path, records: Sequence[Record]) -> None:
    """Add rows for some records; only those that are in the cache may be given."""
    if not records:
        return
    folder.mkdir(parents=True, exist_ok=True)
    texts = sorted({r.reason for r in records if r.reason} | {json.dumps(r.mended) for r in records if r.mended})
    code = {text: number for number, text in enumerate(texts)}
    packed = [b"" if record.histogram is None else pack(record.histogram) for record in records]
    columns = {
        "key": np.array([r.key.encode() for r in records], np.bytes_),
        "content": np.array([r.content.encode() for r in records], np.bytes_),
        "digest": np.array([r.digest.encode() for r in records], np.bytes_),
        "shape": np.array([r.shape for r in records], np.int32),
        "fill": np.array([r.fill for r in records], np.int16),
        "bytes": np.array([r.bytes for r in records], np.int64),
        "original_shape": np.array([r.original_shape or (0, 0, 0) for r in records], np.int32),
        "original_spacing_mm": np.array([r.original_spacing_mm or (0, 0, 0) for r in records], np.float64),
        "mended": np.array([code[json.dumps(r.mended)] if r.mended else -1 for r in records], np.int32),
        "reason": np.array([code[r.reason] if r.reason else -1 for r in records], np.int32),
        "histogram_size": np.array([len(p) for p in packed], np.int64),
    }
    order = np.lexsort((columns["key"], columns["content"]))
    store_segment(folder, {n: v[order] for n, v in columns.items()}, texts, (packed[i] for i in order))


def merge_segments(folder: Path, without: frozenset[str] = frozenset()) -> VolumeIndex:
    """Make one segment of all there are.

    Args:
        folder: Where the segments lie.
        without: Keys of rows to leave out.

    Returns:
        The merged index.
    """
    for attempt in range(ATTEMPTS):
        try:
            return _merge(folder, without)
        except FileNotFoundError:  # another process was merging
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError


def _merge(folder: Path, without: frozenset[str]) -> VolumeIndex:
    files = segment_files(folder)
    index = VolumeIndex(folder, [load_segment(file) for file in files])
    if not files or (index.merged and not without):
        return index
    newest = max(file.stat().st_mtime_ns for file in files)
    packed = [file.with_suffix(".histograms").read_bytes() for file in files]
    left_out = np.array([b"", *(key.encode() for key in without)], np.bytes_)
    kept = ~np.isin(index.columns["key"], left_out)
    columns = {name: values[kept] for name, values in index.columns.items()}
    segment, start, size = columns.pop("segment"), columns.pop("histogram_start"), columns["histogram_size"]
    written = None
    if kept.any():
        blobs = (packed[s][a : a + n] for s, a, n in zip(segment, start, size, strict=True))
        written = store_segment(folder, columns, index.texts, blobs)
        os.utime(written, ns=(newest, newest))  # rows that others added meanwhile stay the newer ones
    for file in files:
        if file != written:
            file.unlink(missing_ok=True)
            file.with_suffix(".histograms").unlink(missing_ok=True)
    return VolumeIndex.open(folder)
