"""Pre-processed volumes on disk: one blosc2 file and one small record each, and an index of all records.

    CACHE/<digest of the target>/target.json
                                 3f/3fa9….b2nd    int16 array, chunked for reading crops
                                 3f/3fa9….json    its record, or why the volume was rejected
                                 index/           the records in columns, see `index.py`

A volume's key is the digest of its source's fingerprint, so nothing here tells where it came from or whose it is. The
record is written last: a volume without one is not there, whatever else lies around. The index is what runs read; it
holds only what the records hold, and can be made again from them.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from nnunetv2_voco.atomic import write_atomically, write_json
from nnunetv2_voco.pretrain.crops import BodyMap
from nnunetv2_voco.pretrain.index import IndexedRecords, VolumeIndex, add_segment, merge_segments
from nnunetv2_voco.pretrain.near_lossless import quantise, restore
from nnunetv2_voco.pretrain.preprocess import AIR_HU, MAP_BLOCK, PreparedVolume, Target
from nnunetv2_voco.pretrain.record import Record

CHUNK = (32, 64, 64)
BLOCK = (16, 32, 32)
"""Crops are read block by block; these sizes waste little around a 64³ crop and still compress well."""

COMPRESSION = blosc2.CParams(codec=blosc2.Codec.LZ4HC, clevel=1, filters=[blosc2.Filter.SHUFFLE], nthreads=1)
"""Lossless. Measured on CT at 1.5 mm: 7.2 bits a voxel. Level 5 takes 6.8 but three times as long to write, zstd
6.0 but three times as long to read."""

DENSE_COMPRESSION = blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=1, filters=[blosc2.Filter.SHUFFLE], nthreads=1)
"""Of near-lossless caches, which are made for their size: 4.8 bits a voxel at ±1 HU, where LZ4HC takes 5.7."""

FEW = 1000
"""Up to so many volumes a run that is continued looks whether each is there; on a cluster's file system that takes a
second. Of more it believes the index; a volume that is gone is then named when it is drawn."""


def volume_key(fingerprint: str) -> str:
    """Name of a volume in the cache."""
    return hashlib.sha256(fingerprint.encode()).hexdigest()[:24]


def fill_value(volume: PreparedVolume, target: Target) -> int:
    """Value that stands for what lies outside a volume."""
    if target.hounsfield:
        return AIR_HU
    # nnU-Net leaves the background at zero where it normalises within a mask
    return 0 if target.use_mask_for_norm else int(volume.array.min())


class VolumeCache:
    """The volumes that were brought to one target.

    Args:
        folder: Root of the cache; may be shared by runs with other targets, and by several processes.
        target: What the volumes are brought to.
    """

    def __init__(self, folder: str | os.PathLike, target: Target) -> None:
        self.folder = Path(folder) / target.digest
        self.target = target

    def create(self) -> None:
        """Make the folder and note the target in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "target.json", asdict(self.target))

    def record(self, key: str) -> Record | None:
        """Read a volume's record; None when it is not in the cache, is damaged, or its array is gone."""
        record = self.read_record(key)
        return record if record is None or self.is_whole(record) else None

    def read_record(self, key: str) -> Record | None:
        """Read a volume's record whether or not its array is there; None when there is none, or it is damaged."""
        try:
            content = json.loads(self.path(key, ".json").read_text(encoding="utf-8"))
            return Record(**{name: tuple(v) if isinstance(v, list) else v for name, v in content.items()})
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return None

    def is_whole(self, record: Record) -> bool:
        """Whether the array of a usable volume is there in full size."""
        try:
            return not record.usable or self.path(record.key, ".b2nd").stat().st_size == record.bytes
        except FileNotFoundError:
            return False

    def recorded_keys(self) -> Iterator[str]:
        """List the keys of all records there are, index or no index; opens no file."""
        for folder in sorted(self.folder.glob("??")):
            yield from sorted(entry.name[:-5] for entry in os.scandir(folder) if entry.name.endswith(".json"))

    def open_index(self) -> VolumeIndex:
        """Read the index; empty where there is none."""
        return VolumeIndex.open(self.folder / "index")

    def add_to_index(self, records: Sequence[Record]) -> None:
        """Add records that are in the cache to the index; any number of processes may do so at a time."""
        add_segment(self.folder / "index", records)

    def merge_index(self, without: frozenset[str] = frozenset()) -> VolumeIndex:
        """Make one file of the index's parts; see `index.merge_segments`."""
        return merge_segments(self.folder / "index", without)

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Which volumes have no usable record; a few are looked at one by one, of many the index is believed."""
        if len(keys) <= FEW:
            return [key for key in keys if self.record(key) is None]
        return [key for key, row in zip(keys, self.open_index().rows(keys), strict=True) if row < 0]

    def records(self, keys: Sequence[str]) -> Sequence[Record]:
        """Return the records of some volumes without their histograms, from the index if it knows them all.

        Raises:
            KeyError: For the first key that is in neither index nor cache.
        """
        index = self.open_index()
        rows = index.rows(keys)
        if (rows >= 0).all():
            return IndexedRecords(index, rows)
        records = [self.record(key) if row < 0 else index.record(int(row)) for key, row in zip(keys, rows, strict=True)]
        for key, record in zip(keys, records, strict=True):
            if record is None:
                raise KeyError(key)
        return [record for record in records if record is not None]

    def write(self, record_fields: dict[str, Any], volume: PreparedVolume, *, key: str) -> Record:
        """Store a volume and its record, atomically; the record last.

        Args:
            record_fields: `mended`, `original_shape` and `original_spacing_mm` of the record.
            volume: What to store.
            key: Its name.
        """
        path = self.path(key, ".b2nd")
        path.parent.mkdir(parents=True, exist_ok=True)
        array = quantise(volume.array, self.target.lossy)
        stored = _compressed(array, volume.body_map, self._compression)
        write_atomically(path, lambda temporary: temporary.write_bytes(stored))
        record = Record(
            key=key,
            shape=tuple(int(n) for n in volume.array.shape),
            content=volume.content,
            fill=fill_value(volume, self.target),
            histogram=None if volume.histogram is None else tuple(int(n) for n in volume.histogram),
            bytes=len(stored),
            digest=file_digest(stored),
            **record_fields,
        )
        write_json(self.path(key, ".json"), asdict(record))
        return record

    def reject(self, key: str, reason: str) -> Record:
        """Note why a volume cannot be used, so that it is not read again."""
        path = self.path(key, ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        record = Record(key=key, reason=reason)
        write_json(path, asdict(record))
        return record

    def open(self, record: Record) -> "CachedVolume":
        """Open a volume for reading crops."""
        return CachedVolume(self.path(record.key, ".b2nd"), record, lossy=self.target.lossy)

    @property
    def _compression(self) -> blosc2.CParams:
        return DENSE_COMPRESSION if self.target.lossy else COMPRESSION

    def path(self, key: str, ending: str) -> Path:
        """Where the file of a volume with this ending lies."""
        return self.folder / key[:2] / f"{key}{ending}"


class CachedVolume:
    """One volume of the cache, read box by box.

    Args:
        path: Its blosc2 file.
        record: Its record.
        lossy: As in the target.

    Raises:
        FileNotFoundError: If the file is gone.
        ValueError: If it is damaged.
    """

    def __init__(self, path: Path, record: Record, *, lossy: int = 0) -> None:
        self.record, self._lossy = record, lossy
        try:
            self._array = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})
        except (FileNotFoundError, RuntimeError) as error:
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            state = "gone" if isinstance(error, FileNotFoundError) else "damaged"
            raise kind(
                f"{path}: this volume of the cache is {state}; voco_preprocess --verify --forget -o CACHE takes all "
                "such volumes out, and pre-processing the folders again makes them anew"
            ) from None

    @cached_property
    def body(self) -> BodyMap:
        """Where the body is."""
        shape = self._array.schunk.vlmeta["body_map_shape"]
        blocks = np.frombuffer(self._array.schunk.vlmeta["body_map"], np.uint8).reshape(shape)
        return BodyMap(blocks, MAP_BLOCK, full=255)

    def read(self, corner: Sequence[int], shape: Sequence[int]) -> np.ndarray:
        """Read a box, padded where it reaches beyond the volume.

        Args:
            corner: Lower corner in voxels, may be negative.
            shape: Edge lengths in voxels.

        Returns:
            int16 array of `shape`.
        """
        low = [max(0, int(c)) for c in corner]
        high = [min(size, int(c) + int(n)) for c, n, size in zip(corner, shape, self.record.shape, strict=True)]
        inside = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        if all(b - a == n for a, b, n in zip(low, high, shape, strict=True)):
            return restore(self._array[inside], self._lossy)
        box = np.full(tuple(shape), self.record.fill, np.int16)
        if all(b > a for a, b in zip(low, high, strict=True)):
            place = tuple(slice(a - int(c), b - int(c)) for a, b, c in zip(low, high, corner, strict=True))
            box[place] = restore(self._array[inside], self._lossy)
        return box


def file_digest(content: bytes) -> str:
    """Digest of a volume's file, as in its record."""
    return hashlib.blake2b(content, digest_size=12).hexdigest()


def _compressed(array: np.ndarray, body_map: np.ndarray, compression: blosc2.CParams) -> bytes:
    chunks = tuple(min(c, n) for c, n in zip(CHUNK, array.shape, strict=True))
    blocks = tuple(min(b, c) for b, c in zip(BLOCK, chunks, strict=True))
    stored = blosc2.empty(
        array.shape, array.dtype, chunks=chunks, blocks=blocks, cparams=compression,
        dparams=blosc2.DParams(nthreads=1),  # else the file notes how many threads this process uses
    )  # fmt: skip
    stored[...] = array  # at once; `blosc2.asarray` goes from chunk to chunk in Python
    stored.schunk.vlmeta["body_map"] = body_map.tobytes()
    stored.schunk.vlmeta["body_map_shape"] = list(body_map.shape)
    return stored.to_cframe()
