"""Measures what the cache costs on disk and what one training sample costs on one core.

    python benchmarks/sampling.py FOLDER [--spacing 1.5] [--repeats 100]

Pre-processes the CTs in FOLDER into a temporary cache and prints the bits that a voxel takes, for each volume and in
all. Then it measures, with one thread, how long it takes to open a volume, draw a region and crops, read, normalise
and augment them: one sample of 9 base crops and 2 random crops of 64³, median and 10th to 90th percentile. Once over
the volumes of the folder, and once over one of them repeated 3 × 3 × 3 times, which shows that a volume's size does
not matter. Files are in the operating system's cache by then: the disk is not measured.

Goals: at most 9 bits per voxel and 15 ms per sample.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence

import numpy as np
import torch

from nnunetv2_voco.pretrain.augment import crop_transforms
from nnunetv2_voco.pretrain.cache import Record, VolumeCache
from nnunetv2_voco.pretrain.collect import collect
from nnunetv2_voco.pretrain.dataset import CropPlan, PretrainDataset
from nnunetv2_voco.pretrain.intensity import body_properties, ct_intensity
from nnunetv2_voco.pretrain.preprocess import MAP_BLOCK, PreparedVolume, Target

PLAN = CropPlan(grid=(1, 3, 3), size_vox=(64, 64, 64), random_crops=2, min_body_crop=0.2, min_body_base=0.05)
TILES = (3, 3, 3)
WARM_UP = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--spacing", type=float, default=1.5, metavar="MM", help="edge of the cached voxels")
    parser.add_argument("--repeats", type=int, default=100, help="samples that are measured")
    parser.add_argument("-np", type=int, default=2, dest="processes", help="processes for pre-processing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        target = Target(spacing_mm=(args.spacing,) * 3)
        cache = VolumeCache(folder, target)
        collection = collect([args.folder], cache, target=target, modality="CT", num_processes=args.processes)
        records = [volume.record for volume in collection.usable]
        if not records:
            raise SystemExit(f"{args.folder}: no usable CT")
        for volume in collection.usable:
            print(f"{bits_per_voxel([volume.record]):5.2f} bits a voxel  {shape_of(volume.record):>15}  {volume.name}")
        print(f"{bits_per_voxel(records):5.2f} bits a voxel in all\n")
        middle = sorted(records, key=lambda record: np.prod(record.shape))[len(records) // 2]
        big = tiled(cache, middle)
        for title, chosen in (
            (f"{len(records)} volumes of the folder", records),
            (f"one of them, {shape_of(middle)}", [middle]),
            (f"the same {'×'.join(str(n) for n in TILES)} times, {shape_of(big)}", [big]),
        ):
            low, median, high = np.percentile(sample_times(cache, chosen, args.repeats), [10, 50, 90]) * 1e3
            print(f"{median:5.1f} ms a sample ({low:.1f} to {high:.1f})  {title}")


def sample_times(cache: VolumeCache, records: Sequence[Record], repeats: int) -> list[float]:
    intensity = ct_intensity(body_properties(cache.open_index().histograms([record.key for record in records])))
    transform = crop_transforms(shift_amplitude=0.1 * (intensity.window[1] - intensity.window[0]), isotropic_plane=True)
    dataset = PretrainDataset(cache, records, plan=PLAN, intensity=intensity, transform=transform, seed=0)
    times = []
    for number in range(WARM_UP + repeats):
        start = time.perf_counter()
        dataset[number]
        times.append(time.perf_counter() - start)
    return times[WARM_UP:]


def tiled(cache: VolumeCache, record: Record) -> Record:
    """Store a volume many times as large, made of one that is in the cache."""
    whole = [n - n % MAP_BLOCK for n in record.shape]  # so that its map of the body can be repeated as well
    volume = cache.open(record)
    axes = [np.arange(0, n, MAP_BLOCK) for n in whole]
    corners = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    body = volume.body.fraction(corners.reshape(-1, 3), np.array((MAP_BLOCK,) * 3)).reshape(corners.shape[:3])
    large = PreparedVolume(
        array=np.tile(volume.read((0, 0, 0), whole), TILES),
        body_map=np.tile(np.rint(body * 255).astype(np.uint8), TILES),
        histogram=np.array(next(cache.open_index().histograms([record.key]))),
        content="",
    )
    stored = cache.write({}, large, key="tiled")
    cache.add_to_index([stored])
    return stored


def bits_per_voxel(records: Sequence[Record]) -> float:
    return 8 * sum(record.bytes for record in records) / sum(float(np.prod(record.shape)) for record in records)


def shape_of(record: Record) -> str:
    return " × ".join(str(n) for n in record.shape)


if __name__ == "__main__":
    main()
