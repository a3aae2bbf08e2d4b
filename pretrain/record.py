"""What is known of a cached volume without opening it."""

from dataclasses import dataclass

from nnunetv2_voco.pretrain.preprocess import AIR_HU


@dataclass(frozen=True, kw_only=True)
class Record:
    """One volume of a cache, or why it was rejected.

    Attributes:
        key: Its name in the cache.
        shape: Of the array, (z, y, x).
        content: Digest of the voxels before resampling; equal for copies of one volume.
        fill: Value that stands for what lies outside the volume.
        mended: Repairs made on reading, in words.
        histogram: Counts of the body's HU, see `preprocess.HISTOGRAM_EDGES`. None if not in HU, and in records that
            come from the index, which hands histograms out apart: `VolumeIndex.histograms`.
        original_shape: Size of the volume as read, (z, y, x).
        original_spacing_mm: Its spacing, (z, y, x).
        bytes: Size of the file.
        digest: Of the file, hexadecimal; empty in caches made before it was kept.
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
    digest: str = ""
    reason: str | None = None

    @property
    def usable(self) -> bool:
        """Whether the volume can be trained on."""
        return self.reason is None
