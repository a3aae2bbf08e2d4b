"""Records for tests of the index, and what other processes do in tests; imports little, as they start anew."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_voco.pretrain.index import add_segment, merge_segments
from nnunetv2_voco.pretrain.preprocess import HISTOGRAM_EDGES
from nnunetv2_voco.pretrain.record import Record


def make_records(number: int, *, first: int = 0) -> list[Record]:
    """Records with every kind of content; the same number gives the same record."""
    return [_make_record(i) for i in range(first, first + number)]


def _make_record(i: int) -> Record:
    rng = np.random.default_rng(i)
    if i % 7 == 3:
        return Record(key=f"{rng.integers(2**60):024x}", reason=f"too small ({i % 2})")
    return Record(
        key=f"{rng.integers(2**60):024x}",
        shape=tuple(int(n) for n in rng.integers(1, 600, 3)),
        content=f"{rng.integers(2**60):020x}",
        fill=-1024 if i % 2 else int(rng.integers(-3000, 0)),
        mended=("padding of −3024 set to -1024", "turned")[: i % 3],
        histogram=None if i % 5 == 1 else tuple(int(n) for n in rng.integers(0, 2**20, len(HISTOGRAM_EDGES) - 1)),
        original_shape=(512, 512, i) if i else (),
        original_spacing_mm=(0.9766, 1.0 / 3, 5.0) if i else (),
        bytes=int(rng.integers(2**40)),
        digest=f"{rng.integers(2**60):024x}",
    )


def add_and_merge(folder: str, worker: int) -> None:
    """Add eighteen records in six rounds, merging after each."""
    for round_ in range(6):
        add_segment(Path(folder), make_records(3, first=100 * worker + 3 * round_))
        merge_segments(Path(folder))


def refuse_or_die(source: Any, _cache: Any, _target: Any) -> Record:
    """Stands in for `process_volume` in a worker: one volume kills its process."""
    if source.name == "killer":
        os.kill(os.getpid(), signal.SIGKILL)
    return Record(key=source.name, reason="small")
