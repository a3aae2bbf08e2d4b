"""Cached volumes made without images, for the tests of what reads a cache."""

from pathlib import Path

import numpy as np

from nnunetv2_voco.pretrain.cache import Record, VolumeCache
from nnunetv2_voco.pretrain.preprocess import HISTOGRAM_EDGES, MAP_BLOCK, PreparedVolume, Target, block_means


def prepared_volume(rng: np.random.Generator, shape: tuple[int, int, int], *, body: np.ndarray | None = None):
    """A volume of distinct random HU, all of it body unless told."""
    array = rng.integers(-1024, 3072, shape).astype(np.int16)
    mask = np.ones(shape, bool) if body is None else body
    return PreparedVolume(
        array=array,
        body_map=block_means(mask, MAP_BLOCK),
        histogram=np.histogram(array[mask], bins=HISTOGRAM_EDGES)[0],
        content=f"{rng.integers(2**60):x}",
    )


def filled_cache(
    folder: Path, rng: np.random.Generator, shapes: list[tuple[int, int, int]]
) -> tuple[VolumeCache, list[Record], list[PreparedVolume]]:
    """A cache with one volume of each shape."""
    cache = VolumeCache(folder, Target(spacing_mm=(1.0, 1.0, 1.0)))
    cache.create()
    volumes = [prepared_volume(rng, shape) for shape in shapes]
    fields = {"mended": (), "original_shape": (9, 9, 9), "original_spacing_mm": (1.0, 2.0, 3.0)}
    records = [cache.write(fields, volume, key=f"{i:02d}abcdef") for i, volume in enumerate(volumes)]
    return cache, records, volumes
