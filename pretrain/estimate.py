"""What a run will cost: disk, memory and time, from the volumes' sizes and a step measured here or worked out."""

import math
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from rich.console import Console

from nnunetv2_voco.pretrain.allocator import peak_memory
from nnunetv2_voco.pretrain.config import PretrainConfig
from nnunetv2_voco.pretrain.dataset import Sample
from nnunetv2_voco.pretrain.dataset_plans import read_dataset_plans
from nnunetv2_voco.pretrain.feed import Batch, deep_supervision_scales
from nnunetv2_voco.pretrain.labelled.patches import LabelledPatch
from nnunetv2_voco.pretrain.log import duration
from nnunetv2_voco.pretrain.loop import resolve_device
from nnunetv2_voco.pretrain.precision import autocast_context, requested_precision
from nnunetv2_voco.pretrain.record import Record
from nnunetv2_voco.pretrain.request import Request
from nnunetv2_voco.pretrain.roofline import ARITHMETIC_SHARE, BANDWIDTH_SHARE, GPUS, cost_of_a_crop, parse_gpus
from nnunetv2_voco.pretrain.step import make_model, quicken, step_loss
from nnunetv2_voco.pretrain.training_plan import (
    TrainingPlan,
    labelled_data,
    make_training_plan,
    preprocessing_target,
)

BITS_PER_VOXEL = 7.2
"""Of the cache, measured on CT at 1.5 mm; noisier or coarser data take up to 9."""

TYPICAL_VOLUME_MM = (350.0, 380.0, 380.0)
"""Extent of a CT of chest or abdomen, (z, y, x), where no volumes are given to look at."""

SECONDS_PER_SAMPLE = 0.013
"""Of one core, to read and augment the crops of one volume, as benchmarks/sampling.py measures it."""

BODY_SHARE = 0.6
"""Share of a scan's voxels that the body's bounding box keeps, between a cropped chest (1.0) and a head (0.3)."""


def cache_bytes(shapes: Sequence[tuple[int, ...]], *, cropped: bool) -> float:
    """Expected size of the cache for volumes of these sizes at the target spacing, cropped to the body or not yet."""
    kept = 1.0 if cropped else BODY_SHARE
    return sum(float(np.prod(shape)) for shape in shapes) * kept * BITS_PER_VOXEL / 8


def measure_step(config: PretrainConfig, plan: TrainingPlan) -> tuple[float, float]:
    """Time forward and backward passes of one volume's crops, on a GPU of a whole batch's, and measure their memory.

    Returns:
        Seconds for a step of this process, and bytes, which with `--chunk` do not grow with the batch.
    """
    device = torch.device(resolve_device(config.device))
    volumes = config.batch_size if device.type == "cuda" else 1
    chunked = config.crops_at_once is not None and config.crops_at_once < volumes * config.crops_per_volume
    model = make_model(config, plan).to(device)
    precision = requested_precision(config.precision, device)
    quicken(model, config, precision, device)
    batch, pseudo = _random_batch(config, plan, volumes, device)
    before, seconds = _memory(device), []
    for _ in range(2):
        started = time.monotonic()
        with autocast_context(precision, device):
            loss = step_loss(model, batch, pseudo, config, 0, config.inter_weight)
        loss.total.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - started)
    scale = config.batch_size / volumes
    at_once = 1.0 if chunked else min(scale, (config.crops_at_once or math.inf) / (volumes * config.crops_per_volume))
    return min(seconds) * scale * config.accumulate, (_memory(device) - before) * at_once


def _random_batch(
    config: PretrainConfig, plan: TrainingPlan, volumes: int, device: torch.device
) -> tuple[Batch, tuple[torch.Tensor, torch.Tensor] | None]:
    """Make a batch of noise of the size of so many volumes' share, and pseudo-labels if the recipe has them."""
    bases, pseudo, labelled = int(np.prod(config.grid)), None, None
    crops = torch.randn(volumes, config.random_crops + bases, 1, *plan.crop_size, device=device)
    overlaps = torch.full((volumes, config.random_crops, bases), 1 / bases, device=device)
    valid = torch.ones(volumes, bases, dtype=torch.bool, device=device)
    places = torch.rand(volumes, config.random_crops + bases, 2, 3, device=device)
    if plan.patch_size is not None:
        number = max(1, round(config.labelled_batch_size * volumes / config.batch_size))
        sizes = np.multiply(deep_supervision_scales(plan.architecture.strides), plan.patch_size).astype(int).tolist()
        targets = tuple(torch.zeros(number, 1, *size, dtype=torch.int16, device=device) for size in sizes)
        sets = torch.zeros(number, dtype=torch.int64, device=device)
        labelled = LabelledPatch(torch.randn(number, 1, *plan.patch_size, device=device), targets, sets)
    if config.learns_from.pseudo:
        images = crops[:, : config.random_crops].flatten(0, 1)
        if config.pseudo_on == "patches" and labelled is not None:
            images = labelled.image
        pseudo = images, torch.zeros_like(images, dtype=torch.int64)
    hidden = crops[:, : config.random_crops if config.trains_decoder else 0]
    return Batch(Sample(crops, overlaps, valid, places, hidden), labelled), pseudo


def print_estimate(
    config: PretrainConfig,
    plan: TrainingPlan,
    shapes: Sequence[tuple[int, ...]],
    console: Console,
    *,
    volumes: int,
    gpus: str | None,
    cropped: bool = False,
) -> None:
    """Print what the run would take.

    Args:
        config: Settings.
        plan: What would be trained.
        shapes: Sizes of volumes at the target spacing; none for a run on labelled data alone.
        console: Where to print.
        volumes: How many volumes of such sizes there will be.
        gpus: Name of a GPU, or number and name, as `parse_gpus` reads them; this machine, if None.
        cropped: Whether the sizes are those of volumes that are already cropped to the body.

    Raises:
        ValueError: If the GPU is unknown.
    """
    if shapes:
        cache = cache_bytes(shapes, cropped=cropped) / len(shapes) * volumes
        console.print(
            f"Disk: about {_size(cache)} for the cache of {volumes} volumes, {_size(cache / volumes)} each.",
            highlight=False,
        )
    lines = _on_this_machine(config, plan) if gpus is None else _on_gpus(config, plan, *parse_gpus(gpus))
    if gpus is None or config.learns_from.contrast:
        for line in lines:
            console.print(line, highlight=False)
    if gpus is not None and config.labelled:
        console.print(
            "Labelled patches and pseudo-labels come on top; their time is measured on this machine only, without "
            "--gpu.",
            highlight=False,
        )


def estimate_without_volumes(request: Request, console: Console) -> None:
    """Print what a run over so many volumes of a typical size would take; nothing is read or written."""
    config = PretrainConfig(**{name: value for name, value in request.settings.items() if name != "weights"})
    dataset_plans = (
        None
        if config.dataset is None
        else read_dataset_plans(config.dataset, configuration=config.configuration, plans=config.plans)
    )
    target = preprocessing_target(config, dataset_plans)
    extents_and_spacings = zip(target.transpose, target.spacing_mm, strict=True)
    z, y, x = (max(1, round(TYPICAL_VOLUME_MM[axis] / spacing)) for axis, spacing in extents_and_spacings)
    records = [Record(key=str(i), content=str(i), shape=(z, y, x)) for i in range(2)]
    plan = make_training_plan(config, records, target=target, plans=dataset_plans, labelled=labelled_data(config))
    extent = " × ".join(f"{mm:g}" for mm in TYPICAL_VOLUME_MM)
    console.print(f"No volumes given; reckoning with CTs of {extent} mm (z, y, x).", highlight=False)
    print_estimate(config, plan, [(z, y, x)], console, volumes=request.assumed_volumes or 1, gpus=request.gpus)


def _on_this_machine(config: PretrainConfig, plan: TrainingPlan) -> Iterator[str]:
    seconds, memory = measure_step(config, plan)
    device = resolve_device(config.device)
    yield (
        f"Time: on this machine ({device}) {seconds:.2g} s a step of {config.crops_per_step} crops, measured, so "
        f"{config.steps} steps take about {duration(seconds * config.steps)}. Memory: {_size(memory)}."
    )
    if device == "cpu" and seconds * config.steps > 48 * 3600:
        yield "Without a GPU try --tiny."


def _on_gpus(config: PretrainConfig, plan: TrainingPlan, number: int, name: str) -> Iterator[str]:
    gpu, cost = GPUS[name], cost_of_a_crop(plan.architecture, plan.crop_size)
    crops, at_once = _crops_of_a_step(config), config.crops_at_once
    chunked = at_once is not None and at_once < crops
    seconds = cost.seconds(gpu, crops=crops, chunked=chunked)
    memory = cost.memory(crops_at_once=at_once if at_once is not None and chunked else crops)
    volumes_per_second = number * config.batch_size * config.accumulate / seconds
    yield (
        f"Time: on {number} × {name} about {seconds:.2g} s a step of {number} × {crops} crops, so {config.steps} steps "
        f"take about {duration(seconds * config.steps)}, worked out and not measured. Half as long or twice as long "
        "would be no surprise."
    )
    yield (
        f"  A crop costs {cost.flops / 1e9:.3g} GFLOP forward and backward{', and one more forward pass' * chunked}. "
        f"Assumed: {ARITHMETIC_SHARE:.0%} of {gpu.tflops:g} TFLOPS or {BANDWIDTH_SHARE:.0%} of {gpu.bandwidth:g} GB/s, "
        "whichever takes longer, operation by operation, in 16 bits; exchange between GPUs hidden behind computation; "
        "data always at hand."
    )
    yield (
        f"  Data at hand means {volumes_per_second:.3g} samples a second, about "
        f"{math.ceil(volumes_per_second * SECONDS_PER_SAMPLE)} CPU cores in all (--num-workers) at "
        f"{SECONDS_PER_SAMPLE * 1e3:.0f} ms a sample (measured by benchmarks/sampling.py)."
    )
    fits = memory < gpu.memory * 1e9
    yield f"Memory: about {_size(memory)} of {gpu.memory:g} GB on each GPU{'' if fits else '; it does not fit'}."
    if not fits:
        room = cost.memory(crops_at_once=1) - cost.memory(crops_at_once=0)
        chunk = int((gpu.memory * 1e9 * 0.9 - cost.memory(crops_at_once=0)) / room)
        yield f"Try --chunk {chunk}." if chunk > 0 else "Not even a single crop fits; take a smaller --crop-size."


def _crops_of_a_step(config: PretrainConfig) -> int:
    """Crops of a step and process."""
    return config.batch_size * config.accumulate * config.crops_per_volume


def _memory(device: torch.device) -> float:
    """Peak bytes in use so far."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return peak_memory()


def _size(number: float) -> str:
    if number >= 1e12:
        return f"{number / 1e12:.2f} TB"
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
