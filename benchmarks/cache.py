"""Measures the cache: bits a voxel, writing, and reading random crops, against float32 files of torch and nnU-Net's.

    python benchmarks/cache.py [FOLDER] [--spacing 1.5] [--repeats 5] [--crops 20]

The CTs in FOLDER (without one, phantoms are made) are brought to the spacing once; the same arrays are then stored by

- ours: int16 HU in blosc2, lossless; and with --lossy 1 and 2, which bounds the error of every voxel to 1 and 2 HU;
- torch float32: what a MONAI PersistentDataset writes, read whole as it does, and once more mapped into memory;
- nnU-Net: the normalised float32 in blosc2 as `nnUNetDatasetBlosc2` writes and reads it, segmentation included.

Printed are bits of the file per voxel; milliseconds to write a million voxels; and milliseconds to open a volume and
read a random crop of 64³, and a region of 64 × 192 × 192 as a VoCo sample needs it, normalised float32 in all cases.
Medians over repeats, one thread; contenders take turns within a repeat; times are of the processor, which a busy
machine stretches less, and files are in the operating system's cache: the disk is not measured, only its load in bits.
The ratios say how many times as much the peer takes.

Goals: below 8 bits lossless, below 5 with a bound.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

from nnunetv2_voco.pretrain.cache import VolumeCache
from nnunetv2_voco.pretrain.collect import collect
from nnunetv2_voco.pretrain.intensity import Intensity, body_properties, ct_intensity
from nnunetv2_voco.pretrain.phantom_files import write_phantoms
from nnunetv2_voco.pretrain.preprocess import MAP_BLOCK, PreparedVolume, Target

CROP, REGION = (64, 64, 64), (64, 192, 192)
BOUNDS = (0, 1, 2)
PATCH = (128, 128, 128)
"""nnU-Net chooses its chunks for a patch size; this is that of its default plans for CT."""


class Ours:
    def __init__(self, folder: Path, spacing: float, intensity: Intensity, bound: int) -> None:
        self.name = "ours, lossless" if bound == 0 else f"ours, --lossy {bound}"
        self.cache = VolumeCache(folder, Target(spacing_mm=(spacing,) * 3, lossy=bound))
        self.intensity = intensity
        self.records: dict[str, Any] = {}

    def write(self, key: str, volume: PreparedVolume) -> None:
        self.records[key] = self.cache.write({}, volume, key=key)

    def bytes(self, key: str) -> int:
        return self.records[key].bytes

    def read(self, key: str, box: tuple[slice, ...]) -> np.ndarray:
        volume = self.cache.open(self.records[key])
        return self.intensity(volume.read([s.start for s in box], [s.stop - s.start for s in box]))


class Torch:
    def __init__(self, folder: Path, intensity: Intensity, mapped: bool) -> None:
        self.name = "torch float32, mapped" if mapped else "torch float32"
        self.folder, self.intensity, self.mapped = folder / self.name.replace(" ", "_"), intensity, mapped
        self.folder.mkdir()

    def write(self, key: str, volume: PreparedVolume) -> None:
        torch.save(torch.from_numpy(self.intensity(volume.array)), self.folder / f"{key}.pt")

    def bytes(self, key: str) -> int:
        return (self.folder / f"{key}.pt").stat().st_size

    def read(self, key: str, box: tuple[slice, ...]) -> np.ndarray:
        stored = torch.load(self.folder / f"{key}.pt", weights_only=True, mmap=self.mapped or None)
        return stored[box].numpy().copy()


class NnUNet:
    name = "nnU-Net, blosc2 float32"

    def __init__(self, folder: Path, intensity: Intensity) -> None:
        self.folder, self.intensity = folder / "nnunet", intensity
        self.folder.mkdir()

    def write(self, key: str, volume: PreparedVolume) -> None:
        data = self.intensity(volume.array)[None]
        blocks, chunks = comp_blosc2_params(data.shape, PATCH, data.itemsize)
        for stored in self.folder.glob(f"{key}*.b2nd"):  # blosc2 refuses files that exist
            stored.unlink()
        nnUNetDatasetBlosc2.save_case(
            data, np.zeros(data.shape, np.int8), {}, str(self.folder / key),
            chunks=chunks, blocks=blocks, chunks_seg=chunks, blocks_seg=blocks,
        )  # fmt: skip

    def bytes(self, key: str) -> int:
        return (self.folder / f"{key}.b2nd").stat().st_size

    def read(self, key: str, box: tuple[slice, ...]) -> np.ndarray:
        data, _segmentation, _previous, _properties = nnUNetDatasetBlosc2(str(self.folder), [key]).load_case(key)
        return data[(slice(0, 1), *box)][0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help="CTs; phantoms if not given")
    parser.add_argument("--spacing", type=float, default=1.5, metavar="MM", help="edge of the cached voxels")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--crops", type=int, default=20, help="crops and regions read in each repeat")
    args = parser.parse_args()
    torch.set_num_threads(1)
    blosc2.set_nthreads(1)
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), args.folder, args.spacing, args.repeats, args.crops)


def compare(folder: Path, cts: str | None, spacing: float, repeats: int, crops: int) -> None:
    if cts is None:
        write_phantoms(folder / "phantoms", number=3, spacing_mm=2.0, dicom=False)
    volumes, intensity = prepared_volumes(Path(cts or folder / "phantoms"), folder / "source", spacing)
    contenders = [
        *(Ours(folder, spacing, intensity, bound) for bound in BOUNDS),
        Torch(folder, intensity, mapped=False),
        Torch(folder, intensity, mapped=True),
        NnUNet(folder, intensity),
    ]
    voxels = sum(volume.array.size for volume in volumes.values())
    costs: dict[str, dict[str, list[float]]] = {c.name: {"write": [], "crop": [], "region": []} for c in contenders}
    rng = np.random.default_rng(0)
    for _ in range(repeats):
        for contender in contenders:
            seconds = sum(timed(lambda k=k, v=v, c=contender: c.write(k, v)) for k, v in volumes.items())
            costs[contender.name]["write"].append(1e3 * seconds / (voxels / 1e6))
        for what, size in (("crop", CROP), ("region", REGION)):
            boxes = [random_box(rng, volumes, size) for _ in range(crops)]
            for contender in contenders:
                times = [timed(lambda k=k, b=b, c=contender: c.read(k, b)) for k, b in boxes]
                costs[contender.name][what].append(1e3 * float(np.median(times)))
    check(contenders, volumes, intensity)
    bits = {c.name: 8 * sum(c.bytes(key) for key in volumes) / voxels for c in contenders}
    medians = {name: {what: float(np.median(v)) for what, v in cost.items()} for name, cost in costs.items()}
    print(f"{len(volumes)} volumes, {voxels / 1e6:.0f} million voxels of {spacing:g} mm; median of {repeats}\n")
    print(f"{'':24s}{'bits a voxel':>20s}{'write, ms a million':>24s}{'crop, ms':>18s}{'region, ms':>18s}")
    own, reference = bits[contenders[0].name], medians[contenders[0].name]
    for name, cost in medians.items():
        cells = [(bits[name], own), *((cost[what], reference[what]) for what in ("write", "crop", "region"))]
        print(f"{name:24s}" + "".join(f"{value:12.2f} (×{value / first:5.2f})" for value, first in cells))


def prepared_volumes(cts: Path, folder: Path, spacing: float) -> tuple[dict[str, PreparedVolume], Intensity]:
    """Pre-process a folder; return the arrays by key and the folder's normalisation."""
    target = Target(spacing_mm=(spacing,) * 3)
    cache = VolumeCache(folder, target)
    collection = collect([cts], cache, target=target, modality="CT", num_processes=0)
    volumes = {}
    for volume in collection.usable:
        record = volume.record
        array = cache.open(record).read((0, 0, 0), record.shape)
        body = np.full([-(-n // MAP_BLOCK) for n in array.shape], 255, np.uint8)
        volumes[record.key] = PreparedVolume(array, body, None, record.content)
    if not volumes:
        raise SystemExit(f"{cts}: no usable CT")
    return volumes, ct_intensity(body_properties(cache.open_index().histograms(list(volumes))))


def random_box(
    rng: np.random.Generator, volumes: dict[str, PreparedVolume], size: Sequence[int]
) -> tuple[str, tuple[slice, ...]]:
    """Draw a volume and a box of this size inside it, smaller where the volume is."""
    key = list(volumes)[rng.integers(len(volumes))]
    shape = volumes[key].array.shape
    corner = [int(rng.integers(max(1, n - s + 1))) for n, s in zip(shape, size, strict=True)]
    return key, tuple(slice(c, min(c + s, n)) for c, s, n in zip(corner, size, shape, strict=True))


def check(contenders: Sequence[Any], volumes: dict[str, PreparedVolume], intensity: Intensity) -> None:
    """All give back what was stored, to within their bound."""
    for key, volume in volumes.items():
        box = tuple(slice(0, n) for n in volume.array.shape)
        for contender in contenders:
            bound = contender.cache.target.lossy if isinstance(contender, Ours) else 0
            allowed = bound * np.ptp(intensity(np.array([0, 1], np.int16))) + 1e-5
            assert np.abs(contender.read(key, box) - intensity(volume.array)).max() <= allowed, contender.name


def timed(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
