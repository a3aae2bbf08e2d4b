"""Whether a cache is sound: every record can be read, every array is complete, decompresses and has its digest."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import blosc2
import numpy as np

from nnunetv2_voco.pretrain.cache import VolumeCache, file_digest
from nnunetv2_voco.pretrain.preprocess import MAP_BLOCK
from nnunetv2_voco.pretrain.record import Record


def find_faults(
    cache: VolumeCache, *, num_threads: int, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[tuple[str, str]]:
    """Yield the key of each faulty volume and what is wrong with it.

    Args:
        cache: The volumes at one target; whatever is in its index, or has a record, is looked at.
        num_threads: Volumes that are read at once; reading and decompressing happen outside Python's lock.
        on_progress: Called with the number of volumes done and in all.
    """
    index = cache.open_index()
    indexed = [key.decode() for key in index.columns["key"]]
    recorded = set(cache.recorded_keys())
    keys = sorted({*indexed, *recorded})
    rows = index.rows(keys)

    def check(number: int) -> str | None:
        row = int(rows[number])
        return volume_fault(cache, keys[number], index.record(row) if row >= 0 else None)

    on_progress(0, len(keys))
    with ThreadPoolExecutor(max(1, num_threads)) as pool:
        for number, fault in enumerate(pool.map(check, range(len(keys)))):
            on_progress(number + 1, len(keys))
            if fault is not None:
                yield keys[number], fault


def volume_fault(cache: VolumeCache, key: str, indexed: Record | None) -> str | None:
    """Say what is wrong with a volume; None if nothing is.

    Args:
        cache: Where it lies.
        key: Its key.
        indexed: What the index holds of it; None if it is not in the index.
    """
    record = cache.read_record(key)
    if record is None:
        return "its record is gone or damaged"
    if record.key != key:
        return f"its record is that of {record.key}"
    if indexed is None:
        return "it is not in the index; voco_preprocess --merge enters it"
    if without_histogram(record) != indexed:
        return "its record differs from the index"
    return _array_fault(cache.path(key, ".b2nd"), record) if record.usable else None


def without_histogram(record: Record) -> Record:
    """Return the record as the index holds it."""
    return Record(**{name: getattr(record, name) for name in record.__dataclass_fields__ if name != "histogram"})


def forget(cache: VolumeCache, keys: frozenset[str]) -> None:
    """Take volumes out of the cache, so that they are pre-processed anew."""
    for key in keys:
        for ending in (".json", ".b2nd"):  # the record first: without it the volume is not there
            cache.path(key, ending).unlink(missing_ok=True)
    cache.merge_index(without=keys)


def _array_fault(path: Path, record: Record) -> str | None:
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"its array cannot be read ({error.strerror})"
    if len(content) != record.bytes:
        return f"its array has {len(content)} bytes, {record.bytes} are expected"
    if record.digest and file_digest(content) != record.digest:
        return "its array does not have the digest of the record: bytes have changed"
    try:
        array = blosc2.ndarray_from_cframe(content)
        voxels = array[:]
        blocks = list(array.schunk.vlmeta["body_map_shape"])
        map_size = len(array.schunk.vlmeta["body_map"])
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        return f"its array does not decompress ({error})"
    if voxels.shape != record.shape or voxels.dtype != np.int16:
        return f"its array is {voxels.shape} of {voxels.dtype}, {record.shape} of int16 is expected"
    if blocks != [-(-n // MAP_BLOCK) for n in record.shape] or map_size != np.prod(blocks):
        return f"its map of the body has {blocks} blocks, which does not fit {record.shape}"
    return None
