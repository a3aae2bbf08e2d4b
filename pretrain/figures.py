"""The pictures of a run's data: samples.png, volumes.png."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nnunetv2_voco.atomic import write_atomically
from nnunetv2_voco.pretrain.cache import Record, VolumeCache
from nnunetv2_voco.pretrain.crops import base_corners
from nnunetv2_voco.pretrain.intensity import Intensity
from nnunetv2_voco.pretrain.model import VoCoModel
from nnunetv2_voco.pretrain.validation import Validator

SAMPLES_SHOWN = 4
CROPS_SHOWN = 3
VOLUMES_SHOWN = 40
SERIES = ("#1f5aa6", "#c2541b", "#2e8b57", "#7a4fa3", "#b08900", "#0f8b8d")
VOLUME_SIDE = 256
"""Longest side of a slice in volumes.png, in pixels; larger slices are thinned."""


def draw_samples(
    path: Path, validator: Validator, model: VoCoModel, device: torch.device, autocast: Callable[[], torch.autocast]
) -> None:
    """Draw a few held-out regions with base grid and random crops, and predicted against true overlaps."""
    shown = _spread(list(range(len(validator.records) * validator.regions_per_volume)), SAMPLES_SHOWN)
    figure = Figure(figsize=(3.4 * (1 + CROPS_SHOWN), 3.5 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 1 + CROPS_SHOWN, squeeze=False)
    grid, size = validator.plan.grid, validator.plan.size_vox
    bases_B3 = base_corners(grid, size)
    predicted_RTB = validator.predict(model, device, autocast)
    rows = iter(panels)
    for number, (v, _r, corner, sample) in enumerate(validator.samples(augmented=False)):
        if number not in shown:
            continue
        first, *others = next(rows)
        volume = validator.cache.open(validator.records[v])
        region = validator.intensity(volume.read(corner, validator.plan.region_vox))
        first.imshow(
            region[size[0] // 2], cmap="gray", vmin=validator.intensity.window[0], vmax=validator.intensity.window[1]
        )
        for base in bases_B3[bases_B3[:, 0] == 0]:
            first.add_patch(_box(base, size, edgecolor="white", linewidth=0.8, alpha=0.7))
        crops_T3 = _crop_corners(sample.overlaps.numpy(), bases_B3, size)
        predicted_TB = predicted_RTB[number]
        valid_B = sample.bases_valid.numpy()
        for crop in range(CROPS_SHOWN):
            first.add_patch(_box(crops_T3[crop], size, edgecolor=SERIES[crop], linewidth=2))
            _compare(others[crop], sample.overlaps[crop].numpy(), predicted_TB[crop], valid_B, grid, SERIES[crop])
        first.set_title(f"held-out volume {v + 1}: region, base grid, random crops", fontsize=9)
        first.axis("off")
    figure.suptitle("Overlap of each random crop (left, by colour) with the base crops: true / predicted similarity")
    save_figure(figure, path)


def draw_volumes(
    path: Path, volumes: Sequence[tuple[str, Record]], cache: VolumeCache, intensity: Intensity, aspect: float
) -> None:
    """Draw one axial mid-slice per volume as the network sees it.

    Args:
        path: The picture to write.
        volumes: Name and record; at most `VOLUMES_SHOWN` are opened and drawn.
        cache: Where they lie.
        intensity: Normalisation.
        aspect: Spacing along y over spacing along x.
    """
    shown = _spread(list(volumes), VOLUMES_SHOWN)
    columns = min(6, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.4 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    for axes, (name, record) in zip(panels, shown, strict=False):
        z, y, x = record.shape
        middle = intensity(cache.open(record).read((z // 2, 0, 0), (1, y, x)))[0]
        step = max(1, -(-max(y, x) // VOLUME_SIDE))
        axes.imshow(
            middle[::step, ::step], cmap="gray", vmin=intensity.window[0], vmax=intensity.window[1], aspect=aspect
        )
        axes.set_title(_shorten(name, 34), fontsize=7)
    more = "" if len(shown) == len(volumes) else f" ({len(shown)} of {len(volumes)})"
    figure.suptitle(f"Mid-slices after pre-processing and normalisation{more}", fontsize=10)
    save_figure(figure, path)


def _compare(
    axes: Axes,
    true_B: np.ndarray,
    predicted_B: np.ndarray,
    valid_B: np.ndarray,
    grid: tuple[int, int, int],
    colour: str,
) -> None:
    """Show predicted similarities as a heat map of the grid's first layer, with true / predicted numbers on it."""
    layer = grid[1] * grid[2]
    best = int(np.argmax(true_B.reshape(grid[0], layer).sum(axis=1)))
    cells = slice(best * layer, (best + 1) * layer)
    axes.imshow(np.where(valid_B, predicted_B, np.nan)[cells].reshape(grid[1:]), cmap="viridis", vmin=0, vmax=1)
    for cell, (true, predicted, valid) in enumerate(
        zip(true_B[cells], predicted_B[cells], valid_B[cells], strict=True)
    ):
        text = f"{true:.2f}\n{predicted:.2f}" if valid else "air"
        ink = "black" if valid and predicted > 0.6 else "white" if valid else "gray"
        axes.text(cell % grid[2], cell // grid[2], text, ha="center", va="center", fontsize=9, color=ink)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=3)


def _crop_corners(overlaps_TB: np.ndarray, bases_B3: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """Recover the crops' corners from their overlaps: the mean of the bases' corners, weighted by overlap."""
    return (overlaps_TB @ bases_B3) / np.maximum(overlaps_TB.sum(axis=1, keepdims=True), 1e-6)


def _box(corner: np.ndarray, size: tuple[int, int, int], **style: Any) -> Rectangle:
    return Rectangle((corner[2] - 0.5, corner[1] - 0.5), size[2], size[1], fill=False, **style)


def _spread(items: list, most: int) -> list:
    """At most `most` items, evenly spread over the list."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _shorten(name: str, length: int) -> str:
    return name if len(name) <= length else "…" + name[-(length - 1) :]


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    canvas = FigureCanvasAgg(figure)
    write_atomically(path, lambda temporary: canvas.print_png(str(temporary)))
