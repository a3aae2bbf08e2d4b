"""What a run will cost: cache, memory and time, from the volumes' sizes and one measured step."""

import contextlib
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
from rich.console import Console

from nnunetv2_voco.pretrain.cache import Record
from nnunetv2_voco.pretrain.config import PretrainConfig
from nnunetv2_voco.pretrain.log import duration
from nnunetv2_voco.pretrain.loop import loss_arguments, resolve_device
from nnunetv2_voco.pretrain.model import VoCoModel
from nnunetv2_voco.pretrain.precision import autocast_context, requested_precision
from nnunetv2_voco.pretrain.training_plan import TrainingPlan

with contextlib.suppress(ImportError):  # Windows has none
    import resource

BITS_PER_VOXEL = 7.0
"""Of the cache, measured on CT at 1.5 mm; noisier or coarser data take up to 9."""

BODY_SHARE = 0.6
"""Share of a scan's voxels that the body's bounding box keeps, between a cropped chest (1.0) and a head (0.3)."""


def cache_bytes(shapes: Sequence[tuple[int, ...]]) -> float:
    """Expected size of the cache for volumes of these sizes at the target spacing, before cropping to the body."""
    return sum(float(np.prod(shape)) for shape in shapes) * BODY_SHARE * BITS_PER_VOXEL / 8


def measure_step(config: PretrainConfig, plan: TrainingPlan) -> tuple[float, float]:
    """Time forward and backward passes of one volume's crops and measure the memory they take.

    Returns:
        Seconds and bytes, for a batch of `config.batch_size` volumes.
    """
    device = torch.device(resolve_device(config.device))
    volumes = config.batch_size if device.type == "cuda" else 1
    model = VoCoModel(plan.architecture, random_crops=config.random_crops, projection_size=config.projection_size).to(
        device
    )
    bases = int(np.prod(config.grid))
    crops = torch.randn(volumes, config.random_crops + bases, 1, *plan.crop_size, device=device)
    overlaps = torch.full((volumes, config.random_crops, bases), 1 / bases, device=device)
    valid = torch.ones(volumes, bases, dtype=torch.bool, device=device)
    before, seconds = _memory(device), []
    for _ in range(2):
        started = time.monotonic()
        with autocast_context(requested_precision(config.precision, device), device):
            loss = model(crops, overlaps, valid, **loss_arguments(config, 0, config.inter_weight))
        loss.total.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - started)
    scale = config.batch_size / volumes
    return min(seconds) * scale, (_memory(device) - before) * scale


def print_estimate(config: PretrainConfig, plan: TrainingPlan, records: Sequence[Record], console: Console) -> None:
    """Print what the run would take on this machine."""
    seconds, memory = measure_step(config, plan)
    device = resolve_device(config.device)
    console.print(
        f"Estimate for this machine ({device}): cache about {_size(cache_bytes([r.shape for r in records]))}; "
        f"{_size(memory)} of memory and {seconds:.2g} s a step, so {config.steps} steps take about "
        f"{duration(seconds * config.steps)}. Nothing was written but volumes.json.",
        highlight=False,
    )
    if device == "cpu" and seconds * config.steps > 48 * 3600:
        console.print("Without a GPU try --tiny.", highlight=False)


def _memory(device: torch.device) -> float:
    """Peak bytes in use so far."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    if "resource" not in globals():
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _size(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
