"""Samples for training: which volume, which region, which crops, all a function of seed and sample number.

Nothing is drawn from a state that runs along: sample number i is the same in every process, with any number of
workers, and after a resume.

Shape suffixes: T = random crops, B = base crops, K = T + B, 3 = (z, y, x).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from nnunetv2_voco.pretrain.allocator import keep_freed_memory
from nnunetv2_voco.pretrain.cache import CachedVolume, Record, VolumeCache
from nnunetv2_voco.pretrain.crops import base_corners, draw_crops, draw_region, overlap_fractions, region_size
from nnunetv2_voco.pretrain.decoder import hide_blocks, no_crops
from nnunetv2_voco.pretrain.intensity import Intensity
from nnunetv2_voco.pretrain.seeded import seeded
from nnunetv2_voco.pretrain.volume_order import VolumeOrder


class Sample(NamedTuple):
    """One volume's crops; a batch holds the same fields with a leading axis of volumes.

    Attributes:
        crops: float32 (K, 1, z, y, x), random crops first.
        overlaps: float32 (T, B).
        bases_valid: bool (B,).
        places: float32 (K, 2, 3), lower and upper corner of each crop in the volume, in longest edges of a region.
        hidden: float32 (T, 1, z, y, x), the random crops with blocks hidden; (0, 1, z, y, x) if no decoder is trained.
    """

    crops: Tensor
    overlaps: Tensor
    bases_valid: Tensor
    places: Tensor
    hidden: Tensor


Fields = TypeVar("Fields", bound=tuple)
"""A named tuple of tensors."""


@dataclass(frozen=True, kw_only=True)
class CropPlan:
    """How regions and crops are laid out.

    Attributes:
        grid: Base crops along (z, y, x).
        size_vox: Edge lengths of a crop.
        random_crops: Random crops per volume.
        min_body_crop: Least share of body in a random crop.
        min_body_base: Least share of body in a base crop that takes part in the loss.
        spacing_mm: Distance of voxels along (z, y, x).
    """

    grid: tuple[int, int, int]
    size_vox: tuple[int, int, int]
    random_crops: int
    min_body_crop: float
    min_body_base: float
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def region_vox(self) -> tuple[int, int, int]:
        """Edge lengths of a region."""
        return region_size(self.grid, self.size_vox)


@dataclass(frozen=True)
class Layout:
    """Where the crops of one sample lie.

    Attributes:
        region_corner: Lower corner of the region in the volume, (3,).
        crops_T3: Lower corners of the random crops within the region.
        bases_B3: Lower corners of the base crops within the region.
        overlaps_TB: Labels.
        bases_valid_B: Which base crops hold anatomy.
    """

    region_corner: np.ndarray
    crops_T3: np.ndarray
    bases_B3: np.ndarray
    overlaps_TB: np.ndarray
    bases_valid_B: np.ndarray


def draw_layout(rng: np.random.Generator, volume: CachedVolume, plan: CropPlan) -> Layout:
    """Draw a region of a volume and random crops inside it."""
    corner = draw_region(rng, volume_shape=volume.record.shape, region_shape=plan.region_vox, body=volume.body)
    return layout_in_region(rng, volume, corner, plan)


def layout_in_region(rng: np.random.Generator, volume: CachedVolume, corner: np.ndarray, plan: CropPlan) -> Layout:
    """Draw random crops inside a given region."""
    size = np.asarray(plan.size_vox)
    crops_T3 = draw_crops(
        rng, plan.random_crops, region_corner=corner, region_shape=plan.region_vox, size_vox=plan.size_vox,
        body=volume.body, min_body=plan.min_body_crop,
    )  # fmt: skip
    bases_B3 = base_corners(plan.grid, plan.size_vox)
    valid_B = volume.body.fraction(bases_B3 + corner, size) >= plan.min_body_base
    return Layout(corner, crops_T3, bases_B3, overlap_fractions(crops_T3, bases_B3, size), valid_B)


def cut_crops(volume: CachedVolume, layout: Layout, plan: CropPlan, intensity: Intensity) -> list[Tensor]:
    """Read a region once and cut all its crops, (1, z, y, x) each; views of one array, to be copied before written."""
    region = torch.from_numpy(intensity(volume.read(layout.region_corner, plan.region_vox)))
    corners = np.concatenate([layout.crops_T3, layout.bases_B3])
    return [
        region[tuple(slice(int(c), int(c) + n) for c, n in zip(corner, plan.size_vox, strict=True))][None]
        for corner in corners
    ]


def make_sample(
    volume: CachedVolume,
    layout: Layout,
    plan: CropPlan,
    intensity: Intensity,
    transform: BasicTransform | None,
    *,
    hide: np.random.Generator | None = None,
) -> Sample:
    """Cut a layout's crops and augment each on its own; `hide` draws what is hidden for a decoder."""
    crops = cut_crops(volume, layout, plan, intensity)
    if transform is not None:
        crops = [transform(image=crop)["image"] for crop in crops]
    stacked = torch.stack(crops)
    return Sample(
        stacked,
        torch.from_numpy(layout.overlaps_TB.astype(np.float32)),
        torch.from_numpy(layout.bases_valid_B),
        torch.from_numpy(crop_places(layout, plan)),
        no_crops(plan.size_vox) if hide is None else hide_blocks(stacked[: plan.random_crops], hide),
    )


def crop_places(layout: Layout, plan: CropPlan) -> np.ndarray:
    """Corners of each crop in the volume, random crops first, in longest edges of a region: (K, 2, 3)."""
    unit_mm = np.max(np.multiply(plan.region_vox, plan.spacing_mm))
    corners_K3 = layout.region_corner + np.concatenate([layout.crops_T3, layout.bases_B3])
    corners_K23 = np.stack([corners_K3, corners_K3 + np.asarray(plan.size_vox)], axis=1)
    return (corners_K23 * (np.asarray(plan.spacing_mm) / unit_mm)).astype(np.float32)


class PretrainDataset(Dataset):
    """Samples by number, without end: the volume of `VolumeOrder`, its region and crops drawn from (seed, i).

    Args:
        cache: Where the volumes lie.
        records: The volumes to draw from.
        plan: Layout of regions and crops.
        intensity: Normalisation.
        transform: Augmentation of single crops.
        seed: The run's seed.
        weights: How often each volume is drawn, relative to the others; alike, when None.
        hide: Whether samples hold the random crops with blocks hidden, too.
    """

    def __init__(
        self,
        cache: VolumeCache,
        records: Sequence[Record],
        *,
        plan: CropPlan,
        intensity: Intensity,
        transform: BasicTransform,
        seed: int,
        weights: Sequence[float] | None = None,
        hide: bool = False,
    ) -> None:
        self.cache, self.records, self.plan, self.hide = cache, records, plan, hide
        self.order = VolumeOrder(len(self.records), seed, weights)
        self.intensity, self.transform, self.seed = intensity, transform, seed

    def __getitem__(self, number: int) -> Sample:
        volume = self.cache.open(self.records[self.order[number]])
        state = np.random.SeedSequence((self.seed, number))
        rng = np.random.default_rng(state)
        layout = draw_layout(rng, volume, self.plan)
        with seeded(state):  # the transforms draw from the global generators
            return make_sample(
                volume, layout, self.plan, self.intensity, self.transform, hide=rng if self.hide else None
            )


class StepSampler(Sampler[list[int]]):
    """Numbers of the samples that one process needs at each step, from `first_step` on.

    All processes together take consecutive numbers, so that the global batch of a step is that of one process with
    the larger batch. With `accumulate` a step takes as many batches from each of them, consecutive as well.
    """

    def __init__(
        self, *, first_step: int, steps: int, batch_size: int, rank: int, world_size: int, accumulate: int = 1
    ) -> None:
        self.first_step, self.steps, self.batch_size = first_step, steps, batch_size
        self.rank, self.world_size, self.accumulate = rank, world_size, accumulate

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first_step, self.steps):
            for batch in range(self.accumulate):
                first = ((step * self.world_size + self.rank) * self.accumulate + batch) * self.batch_size
                yield list(range(first, first + self.batch_size))

    def __len__(self) -> int:
        return max(0, self.steps - self.first_step) * self.accumulate


def join_batches(batches: Sequence[Fields]) -> Fields:
    """Make one batch of several, all of one kind of named tuple of tensors, such as `Sample`."""
    if len(batches) == 1:
        return batches[0]
    return type(batches[0])(*(torch.cat(field) for field in zip(*batches, strict=True)))


def make_loader(
    dataset: Dataset, sampler: StepSampler, *, num_workers: int, pin_memory: bool, join: Callable | None = None
) -> DataLoader:
    """Load batches of samples in the order of steps; `join` makes a batch of samples, as torch does by default."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=join,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=start_worker,
        prefetch_factor=4 if num_workers else None,
    )


def start_worker(_worker: int) -> None:
    """Prepare a process that loads samples: one thread, and freed memory kept, for every sample needs as much again."""
    torch.set_num_threads(1)
    keep_freed_memory()
