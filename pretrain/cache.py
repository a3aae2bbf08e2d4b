"""Pre-processed volumes on disk: one blosc2 file and one small record each.

    CACHE/<digest of the target>/target.json
                                 3f/3fa9….b2nd    int16 array, chunked for reading crops
                                 3f/3fa9….json    its record, or why the volume was rejected

A volume's key is the digest of its source's fingerprint, so nothing here tells where it came from or whose it is. The
record is written last: a volume without one is not there, whatever else lies around.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from nnunetv2_voco.atomic import write_atomically, write_json
from nnunetv2_voco.pretrain.crops import BodyMap
from nnunetv2_voco.pretrain.preprocess import AIR_HU, MAP_BLOCK, PreparedVolume, Target

CHUNK = (32, 64, 64)
BLOCK = (16, 32, 32)
"""Crops are read block by block; these sizes waste little around a 64³ crop and still compress well."""

COMPRESSION = blosc2.CParams(codec=blosc2.Codec.LZ4HC, clevel=5, filters=[blosc2.Filter.SHUFFLE], nthreads=1)
"""Lossless. Measured on CT at 1.5 mm: 6.7 bits a voxel; zstd takes 5.9 but twice the time to read."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a cached volume without opening it.

    Attributes:
        key: Its name in the cache.
        shape: Of the array, (z, y, x).
        content: Digest of the voxels before resampling; equal for copies of one volume.
        fill: Value that stands for what lies outside the volume.
        mended: Repairs made on reading, in words.
        histogram: Counts of the body's HU, see `preprocess.HISTOGRAM_EDGES`; None if not in HU.
        original_shape: Size of the volume as read, (z, y, x).
        original_spacing_mm: Its spacing, (z, y, x).
        bytes: Size of the file.
        reason: Why the volume was rejected; None for a usable one. All but `key` is then empty.
    """

    key: str
    shape: tuple[int, int, int] = (0, 0, 0)
    content: str = ""
    fill: int = AIR_HU
    mended: tuple[str, ...] = ()
    histogram: tuple[int, ...] | None = None
    original_shape: tuple[int, ...] = ()
    original_spacing_mm: tuple[float, ...] = ()
    bytes: int = 0
    reason: str | None = None

    @property
    def usable(self) -> bool:
        """Whether the volume can be trained on."""
        return self.reason is None


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
        try:
            content = json.loads(self._path(key, ".json").read_text(encoding="utf-8"))
            record = Record(**{name: tuple(v) if isinstance(v, list) else v for name, v in content.items()})
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return None
        if record.usable and not self._is_whole(record):
            return None
        return record

    def write(self, record_fields: dict[str, Any], volume: PreparedVolume, *, key: str) -> Record:
        """Store a volume and its record, atomically; the record last.

        Args:
            record_fields: `mended`, `original_shape` and `original_spacing_mm` of the record.
            volume: What to store.
            key: Its name.
        """
        path = self._path(key, ".b2nd")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: _write_array(temporary, volume))
        record = Record(
            key=key,
            shape=tuple(int(n) for n in volume.array.shape),
            content=volume.content,
            fill=fill_value(volume, self.target),
            histogram=None if volume.histogram is None else tuple(int(n) for n in volume.histogram),
            bytes=path.stat().st_size,
            **record_fields,
        )
        write_json(self._path(key, ".json"), asdict(record))
        return record

    def reject(self, key: str, reason: str) -> Record:
        """Note why a volume cannot be used, so that it is not read again."""
        path = self._path(key, ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        record = Record(key=key, reason=reason)
        write_json(path, asdict(record))
        return record

    def open(self, record: Record) -> "CachedVolume":
        """Open a volume for reading crops."""
        return CachedVolume(self._path(record.key, ".b2nd"), record)

    def _path(self, key: str, ending: str) -> Path:
        return self.folder / key[:2] / f"{key}{ending}"

    def _is_whole(self, record: Record) -> bool:
        try:
            return self._path(record.key, ".b2nd").stat().st_size == record.bytes
        except FileNotFoundError:
            return False


class CachedVolume:
    """One volume of the cache, read box by box.

    Args:
        path: Its blosc2 file.
        record: Its record.
    """

    def __init__(self, path: Path, record: Record) -> None:
        self.record = record
        self._array = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})

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
            return self._array[inside]
        box = np.full(tuple(shape), self.record.fill, np.int16)
        if all(b > a for a, b in zip(low, high, strict=True)):
            place = tuple(slice(a - int(c), b - int(c)) for a, b, c in zip(low, high, corner, strict=True))
            box[place] = self._array[inside]
        return box


def _write_array(path: Path, volume: PreparedVolume) -> None:
    chunks = tuple(min(c, n) for c, n in zip(CHUNK, volume.array.shape, strict=True))
    blocks = tuple(min(b, c) for b, c in zip(BLOCK, chunks, strict=True))
    path.unlink()  # blosc2 refuses a file that exists, even an empty one
    stored = blosc2.asarray(
        volume.array, urlpath=str(path), mode="w", chunks=chunks, blocks=blocks, cparams=COMPRESSION
    )
    stored.schunk.vlmeta["body_map"] = volume.body_map.tobytes()
    stored.schunk.vlmeta["body_map_shape"] = list(volume.body_map.shape)
