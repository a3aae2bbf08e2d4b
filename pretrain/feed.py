"""What a step is fed with: unlabelled crops, labelled patches, or both, in the order of steps from any step on."""

import os
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from nnunetv2_voco.pretrain import distributed
from nnunetv2_voco.pretrain.augment import crop_transforms
from nnunetv2_voco.pretrain.cache import VolumeCache
from nnunetv2_voco.pretrain.config import PretrainConfig
from nnunetv2_voco.pretrain.dataset import PretrainDataset, Sample, StepSampler, join_batches, make_loader
from nnunetv2_voco.pretrain.labelled.patches import (
    LabelledDataset,
    LabelledPatch,
    join_labelled,
    join_labelled_batches,
)
from nnunetv2_voco.pretrain.labelled.unlabelled_patches import UnlabelledPatch, UnlabelledPatches
from nnunetv2_voco.pretrain.labelled.validation import DiceValidator
from nnunetv2_voco.pretrain.recipes import first_pseudo_step
from nnunetv2_voco.pretrain.training_plan import TrainingPlan
from nnunetv2_voco.pretrain.validation import Validator


class Batch(NamedTuple):
    """What one process takes in one step; None for what recipe or step leave out."""

    unlabelled: Sample | None
    labelled: LabelledPatch | None
    to_label: UnlabelledPatch | None = None


class Feed:
    """Training batches and validators of a run.

    Args:
        config: Settings.
        plan: What to train on.
        cache: Where the unlabelled volumes lie.

    Attributes:
        unlabelled: Samples of unlabelled volumes, if the recipe takes any.
        labelled: Patches of labelled cases, if the recipe takes any.
        to_label: Patches of unlabelled volumes, if the recipe gives them pseudo-labels.
        validator: Measures position accuracy, if the recipe contrasts.
        dice: Measures Dice, if the recipe takes labels.

    Raises:
        KeyError: With the key of a volume that is not in the cache.
    """

    def __init__(self, config: PretrainConfig, plan: TrainingPlan, cache: VolumeCache) -> None:
        self.config, self.recipe = config, config.learns_from
        self.unlabelled: PretrainDataset | None = None
        self.labelled: LabelledDataset | None = None
        self.to_label: UnlabelledPatches | None = None
        self.validator: Validator | None = None
        self.dice: DiceValidator | None = None
        if self.recipe.unlabelled:
            self._open_volumes(plan, cache)
        if plan.labelled is not None and plan.patch_size is not None:
            part = partial(
                LabelledDataset, plan.labelled, patch_size=plan.patch_size,
                deep_supervision_scales=deep_supervision_scales(plan.architecture.strides),
                mirror=config.mirror, seed=config.seed,
            )  # fmt: skip
            self.labelled = part(part="training")
            self.dice = DiceValidator(plan.labelled, part(part="validation"))

    def _open_volumes(self, plan: TrainingPlan, cache: VolumeCache) -> None:
        training, validation = cache.records(plan.training), cache.records(plan.validation or plan.training)
        config, intensity, crops = self.config, plan.intensity, plan.crop_plan(self.config)
        transform = partial(
            crop_transforms,
            shift_amplitude=0.1 * (intensity.window[1] - intensity.window[0]),
            isotropic_plane=plan.isotropic_plane,
        )
        draw = {"intensity": intensity, "seed": config.seed, "weights": plan.volume_weights}
        if self.recipe.pseudo and config.pseudo_on == "patches":
            assert plan.patch_size is not None
            self.to_label = UnlabelledPatches(cache, training, patch_size=plan.patch_size, mirror=config.mirror, **draw)
        if self.recipe.contrast or self.to_label is None:
            self.unlabelled = PretrainDataset(
                cache, training, plan=crops,
                transform=transform(p_flip=config.flip_p, p_rotate=config.rotate_p), hide=config.trains_decoder, **draw,
            )  # fmt: skip
        if self.recipe.contrast:
            processes = distributed.world_size() if config.gather else 1
            self.validator = Validator(
                cache, validation, plan=crops, intensity=intensity, transform=transform(), seed=config.seed,
                dropout=(config.dropout, config.dropout_p),
                volumes_per_batch=config.batch_size * config.accumulate * processes,
            )  # fmt: skip

    def batches(self, first_step: int, device: torch.device) -> Iterator[Batch]:
        """Yield the batch of each step from `first_step` on; crops stay on the CPU, for they move when embedded."""
        config, first_pseudo = self.config, first_pseudo_step(self.config.steps)
        first_unlabelled = 0 if self.recipe.contrast else first_pseudo
        sampler = partial(
            StepSampler, steps=config.steps, rank=distributed.rank(), world_size=distributed.world_size(),
            accumulate=config.accumulate,
        )  # fmt: skip
        loader = partial(make_loader, pin_memory=device.type == "cuda")
        workers = worker_count(config)
        unlabelled = labelled = to_label = None
        if self.unlabelled is not None:
            numbers = sampler(first_step=max(first_step, first_unlabelled), batch_size=config.batch_size)
            unlabelled = iter(loader(self.unlabelled, numbers, num_workers=workers))
        if self.labelled is not None:
            numbers = sampler(first_step=first_step, batch_size=config.labelled_batch_size)
            labelled = iter(loader(self.labelled, numbers, num_workers=-(-workers // 2), join=join_labelled))
        if self.to_label is not None:
            numbers = sampler(first_step=max(first_step, first_pseudo), batch_size=config.labelled_batch_size)
            to_label = iter(loader(self.to_label, numbers, num_workers=-(-workers // 2)))
        for step in range(first_step, config.steps):
            crops = patches = images = None
            if unlabelled is not None and step >= first_unlabelled:
                joined = join_batches([next(unlabelled) for _ in range(config.accumulate)])
                small = (tensor.to(device, non_blocking=True) for tensor in joined[1:-1])
                crops = Sample(joined.crops, *small, joined.hidden)
            if labelled is not None:
                patches = moved(join_labelled_batches([next(labelled) for _ in range(config.accumulate)]), device)
            if to_label is not None and step >= first_pseudo:
                pair = join_batches([next(to_label) for _ in range(config.accumulate)])
                images = UnlabelledPatch(*(tensor.to(device, non_blocking=True) for tensor in pair))
            elif self.recipe.pseudo and crops is not None and step >= first_pseudo:
                random = crops.crops[:, : config.random_crops].flatten(0, 1).to(device)
                images = UnlabelledPatch(random, random)
            yield Batch(crops, patches, images)

    def trial(self, device: torch.device, volumes: int = 2) -> Batch:
        """Return a small batch of the first samples."""
        crops = patches = None
        if self.recipe.contrast and self.unlabelled is not None:
            samples = [self.unlabelled[i] for i in range(volumes)]
            crops = Sample(*(torch.stack(field).to(device) for field in zip(*samples, strict=True)))
        if self.labelled is not None:
            patches = moved(join_labelled([self.labelled[i] for i in range(volumes)]), device)
        return Batch(crops, patches)


def deep_supervision_scales(strides: np.ndarray) -> list[list[float]]:
    """Size of each output of a U-Net as a share of its input's, finest first, from the strides of its stages."""
    return (1 / np.cumprod(strides, axis=0))[:-1].tolist()


def moved(patches: LabelledPatch, device: torch.device) -> LabelledPatch:
    """Move a batch to a device."""
    return LabelledPatch(
        patches.image.to(device, non_blocking=True),
        tuple(target.to(device, non_blocking=True) for target in patches.targets),
        patches.set_index.to(device, non_blocking=True),
    )


def worker_count(config: PretrainConfig) -> int:
    """Processes that load samples."""
    if config.num_workers is not None:
        return config.num_workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // distributed.local_world_size() - 1))
