"""Measures what a training sample costs, from a warm cache to the batch that enters the network.

    pip install "nnunetv2_voco[benchmarks]"
    python benchmarks/sampling.py [FOLDER] [--spacing 1.5] [--samples 30] [--repeats 3]

A sample is 9 base crops and 2 random crops of 64³ out of a region of 64 × 192 × 192 voxels. Three contenders take them
from the same voxels, one process and one thread each, in turns:

- ours: blosc2 int16, the region read and normalised, crops flipped, turned and shifted by batchgeneratorsv2;
- MONAI: a PersistentDataset of float32 volumes, then a random region and the same augmentation of each crop by MONAI's
  random transforms, as in the VoCo authors' code;
- batchgenerators: nnU-Net's blosc2 float32 files, the region read, and each crop augmented by batchgenerators'
  transforms as nnssl composes them for VoCo (noise, blur, brightness, contrast, low resolution, gamma, flips, turns).

Then ours once more on one volume and on the same volume repeated 3 × 3 × 3 times: neither time nor memory may grow.
Last, `--processes` training processes with `--workers` loaders each take batches of 4 samples; a step is a pause of
`--step-seconds`, and the time that the process waits for its next batch is printed.

Without FOLDER phantoms are made. Files are in the operating system's cache: the disk is not measured.
Goal: a third of the time of the faster one of the others.
"""

import argparse
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import describe_machine, in_own_process, print_comparison, print_table, take_turns

from nnunetv2_voco.pretrain.augment import crop_transforms
from nnunetv2_voco.pretrain.cache import Record, VolumeCache
from nnunetv2_voco.pretrain.collect import collect
from nnunetv2_voco.pretrain.dataset import CropPlan, PretrainDataset, StepSampler, make_loader, start_worker
from nnunetv2_voco.pretrain.intensity import Intensity, body_properties, ct_intensity
from nnunetv2_voco.pretrain.phantom_files import write_phantoms
from nnunetv2_voco.pretrain.preprocess import MAP_BLOCK, PreparedVolume, Target

PLAN = CropPlan(grid=(1, 3, 3), size_vox=(64, 64, 64), random_crops=2, min_body_crop=0.2, min_body_base=0.05)
TILES = (3, 3, 3)
WARM_UP = 3
BATCH_SIZE = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help="CTs; phantoms if not given")
    parser.add_argument("--spacing", type=float, default=1.5, metavar="MM", help="edge of the cached voxels")
    parser.add_argument("--samples", type=int, default=30, help="samples of one measurement")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each contender")
    parser.add_argument("--processes", type=int, default=2, help="training processes that loaders feed")
    parser.add_argument("--workers", type=int, default=1, help="loaders of each")
    parser.add_argument("--steps", type=int, default=12, help="steps of each")
    parser.add_argument("--step-seconds", type=float, default=0.5, help="what a step takes without waiting")
    parser.add_argument("--quick", action="store_true", help="few samples and steps")
    args = parser.parse_args()
    if args.quick:
        args.samples, args.repeats, args.steps = 4, 1, 4
    print(describe_machine())
    with tempfile.TemporaryDirectory() as temporary:
        source, folder = args.folder, Path(temporary)
        if source is None:
            source = folder / "phantoms"
            write_phantoms(source, number=2, spacing_mm=4 if args.quick else 2, dicom=False)
        cache = VolumeCache(folder / "ours", Target(spacing_mm=(args.spacing,) * 3))
        found = collect([source], cache, target=cache.target, modality="CT", num_processes=0).usable
        if not found:
            raise SystemExit(f"{args.folder}: no usable CT")
        records = [volume.record for volume in found]
        makers: dict[str, Callable[..., Callable[[], Any]]] = {
            "ours": ours,
            "MONAI": monai,
            "batchgenerators": batchgenerators,
        }
        print(f"\n{len(records)} volumes, {args.samples} samples, {args.repeats} repeats")
        print_comparison(
            take_turns(
                {
                    name: partial(in_own_process, many, make, args.samples, cache, records, folder / name)
                    for name, make in makers.items()
                },
                args.repeats,
            ),
            ours="ours",
            unit=1e-3 * args.samples,
            unit_name="ms a sample",
        )
        middle = sorted(records, key=lambda record: np.prod(record.shape))[len(records) // 2]
        sizes = {"one volume": middle, f"the same {'×'.join(str(n) for n in TILES)} times": tiled(cache, middle)}
        print("\nOurs by the size of the volume")
        print_comparison(
            take_turns(
                {
                    f"{title}, {shape_of(record)}": partial(
                        in_own_process, many, ours, args.samples, cache, [record], folder
                    )
                    for title, record in sizes.items()
                },
                args.repeats,
            ),
            ours=f"one volume, {shape_of(middle)}",
            unit=1e-3 * args.samples,
            unit_name="ms a sample",
        )
        print_waiting(cache, records, args)


def many(make: Callable[..., Callable[[int], Any]], samples: int, *args: Any) -> Callable[[], None]:
    """The work of drawing samples, after a few that warm up."""
    sample = make(*args)
    for number in range(WARM_UP):
        sample(number)

    def work() -> None:
        for number in range(WARM_UP, WARM_UP + samples):
            sample(number)

    return work


def ours(cache: VolumeCache, records: Sequence[Record], _folder: Path) -> Callable[[int], Any]:
    start_worker(0)  # as the processes of the loader do
    return our_dataset(cache, records).__getitem__


def our_dataset(cache: VolumeCache, records: Sequence[Record]) -> PretrainDataset:
    intensity = intensity_of(cache, records)
    transform = crop_transforms(shift_amplitude=0.1 * (intensity.window[1] - intensity.window[0]), isotropic_plane=True)
    return PretrainDataset(cache, records, plan=PLAN, intensity=intensity, transform=transform, seed=0)


def intensity_of(cache: VolumeCache, records: Sequence[Record]) -> Intensity:
    return ct_intensity(body_properties(cache.open_index().histograms([record.key for record in records])))


def monai(cache: VolumeCache, records: Sequence[Record], folder: Path) -> Callable[[int], Any]:
    from monai import transforms
    from monai.data import PersistentDataset

    intensity = intensity_of(cache, records)
    shift = 0.1 * (intensity.window[1] - intensity.window[0])
    augment = transforms.Compose(
        [
            *(transforms.RandFlip(prob=0.2, spatial_axis=axis) for axis in range(3)),
            transforms.RandRotate90(prob=0.2, max_k=3, spatial_axes=(1, 2)),
            transforms.RandShiftIntensity(offsets=shift, prob=0.5),
        ]
    )

    def crops_of(item: dict[str, Any]) -> Any:
        return torch.stack([augment(item["image"][(slice(None), *crop)]) for crop in draw_crops()])

    pipeline = transforms.Compose(
        [
            transforms.Lambdad("image", lambda index: whole_volume(cache, records[index], intensity)[None]),
            transforms.SpatialPadd("image", PLAN.region_vox),
            transforms.RandSpatialCropd("image", PLAN.region_vox, random_size=False),
        ]
    )
    dataset = PersistentDataset([{"image": i} for i in range(len(records))], pipeline, cache_dir=folder)
    for i in range(len(records)):
        dataset[i]  # fills the cache
    return lambda number: crops_of(dataset[number % len(records)])


def batchgenerators(cache: VolumeCache, records: Sequence[Record], folder: Path) -> Callable[[int], Any]:
    from batchgenerators.transforms.abstract_transforms import Compose
    from batchgenerators.transforms.color_transforms import (
        BrightnessMultiplicativeTransform,
        ContrastAugmentationTransform,
        GammaTransform,
    )
    from batchgenerators.transforms.noise_transforms import GaussianBlurTransform, GaussianNoiseTransform
    from batchgenerators.transforms.resample_transforms import SimulateLowResolutionTransform
    from batchgenerators.transforms.spatial_transforms import MirrorTransform, Rot90Transform
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

    intensity = intensity_of(cache, records)
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier repeat: blosc2 refuses files that exist
    folder.mkdir()
    for record in records:
        volume = whole_volume(cache, record, intensity)[None]
        blocks, chunks = comp_blosc2_params(volume.shape, PLAN.region_vox, volume.itemsize)
        seg = np.zeros(volume.shape, np.int16)
        nnUNetDatasetBlosc2.save_case(
            volume, seg, {}, str(folder / record.key), chunks=chunks, blocks=blocks, chunks_seg=chunks,
            blocks_seg=blocks,
        )  # fmt: skip
    dataset = nnUNetDatasetBlosc2(str(folder), [record.key for record in records])
    augment = Compose(
        [
            GaussianNoiseTransform(p_per_sample=0.1),
            GaussianBlurTransform((0.5, 1.0), different_sigma_per_channel=True, p_per_sample=0.2, p_per_channel=0.5),
            BrightnessMultiplicativeTransform(multiplier_range=(0.75, 1.25), p_per_sample=0.15),
            ContrastAugmentationTransform(p_per_sample=0.15),
            SimulateLowResolutionTransform(
                zoom_range=(0.5, 1), per_channel=True, p_per_channel=0.5, order_downsample=0, order_upsample=3,
                p_per_sample=0.1, ignore_axes=None,
            ),
            GammaTransform((0.7, 1.5), True, True, retain_stats=True, p_per_sample=0.1),
            GammaTransform((0.7, 1.5), False, True, retain_stats=True, p_per_sample=0.3),
            *(MirrorTransform(axes=(axis,)) for axis in range(3)),
            Rot90Transform(axes=(1, 2)),
        ]
    )  # fmt: skip

    def sample(number: int) -> Any:
        data, *_ = dataset.load_case(records[number % len(records)].key)
        shape = data.shape[1:]
        corner = [np.random.randint(max(1, n - r + 1)) for n, r in zip(shape, PLAN.region_vox, strict=True)]
        region = data[(slice(None), *(slice(c, c + r) for c, r in zip(corner, PLAN.region_vox, strict=True)))]
        missing = [r - n for n, r in zip(region.shape[1:], PLAN.region_vox, strict=True)]
        region = np.pad(region, [(0, 0), *((0, m) for m in missing)], constant_values=intensity.window[0])
        crops = np.stack([region[(slice(None), *crop)] for crop in draw_crops()])
        return torch.from_numpy(augment(data=crops, seg=None)["data"])

    return sample


def whole_volume(cache: VolumeCache, record: Record, intensity: Intensity) -> np.ndarray:
    """All voxels of a cached volume, normalised, float32."""
    return intensity(cache.open(record).read((0, 0, 0), record.shape))


def draw_crops() -> list[tuple[slice, ...]]:
    """Boxes of the random crops and the base crops within a region."""
    slack = np.subtract(PLAN.region_vox, PLAN.size_vox)
    corners = [np.random.randint(0, slack + 1) for _ in range(PLAN.random_crops)]
    corners += [np.multiply(cell, PLAN.size_vox) for cell in product(*(range(n) for n in PLAN.grid))]
    return [tuple(slice(c, c + n) for c, n in zip(corner, PLAN.size_vox, strict=True)) for corner in corners]


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


def print_waiting(cache: VolumeCache, records: Sequence[Record], args: argparse.Namespace) -> None:
    """Let several processes train at once, and print how long they wait for data."""
    context = multiprocessing.get_context("spawn")
    waits: Any = context.Queue()
    chosen = (args.processes, args.workers, args.steps, args.step_seconds)
    processes = [
        context.Process(target=train, args=(rank, cache, records, *chosen, waits)) for rank in range(args.processes)
    ]
    for process in processes:
        process.start()
    rows = []
    for rank, seconds in sorted(waits.get() for _ in processes):
        later = np.array(seconds[1:]) * 1e3
        rows.append([f"process {rank}", f"{seconds[0] * 1e3:.0f}", f"{np.median(later):.1f}", f"{later.max():.0f}"])
    for process in processes:
        process.join()
    print(f"\nWait per step of {args.step_seconds:g} s, {BATCH_SIZE} volumes a batch, {args.workers} loaders a process")
    print_table(("", "first ms", "median ms", "longest ms"), rows)


def train(
    rank: int, cache: VolumeCache, records: Sequence[Record], processes: int, workers: int, steps: int, pause: float,
    waits: Any,
) -> None:  # fmt: skip
    sampler = StepSampler(first_step=0, steps=steps, batch_size=BATCH_SIZE, rank=rank, world_size=processes)
    loader = make_loader(our_dataset(cache, records), sampler, num_workers=workers, pin_memory=False)
    seconds, batches = [], iter(loader)
    for _ in range(steps):
        start = time.perf_counter()
        next(batches)
        seconds.append(time.perf_counter() - start)
        time.sleep(pause)
    waits.put((rank, seconds))


def shape_of(record: Record) -> str:
    return " × ".join(str(n) for n in record.shape)


if __name__ == "__main__":
    main()
