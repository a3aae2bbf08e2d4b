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
LAYER_GAP = 2
"""Blank rows between the slices of two layers in samples.png."""
CELL_GAP = 0.1
"""Space between the maps of two layers in samples.png, in cells."""
SERIES = ("#1f5aa6", "#c2541b", "#2e8b57", "#7a4fa3", "#b08900", "#0f8b8d")
VOLUME_SIDE = 256
"""Longest side of a slice in volumes.png, in pixels; larger slices are thinned."""


def draw_samples(
    path: Path, validator: Validator, model: VoCoModel, device: torch.device, autocast: Callable[[], torch.autocast]
) -> None:
    """Draw a few held-out regions with base grid and random crops, and predicted against true overlaps."""
    shown = _spread(list(range(len(validator.records) * validator.regions_per_volume)), SAMPLES_SHOWN)
    grid, size = validator.plan.grid, validator.plan.size_vox
    figure = Figure(figsize=(3.4 * (1 + CROPS_SHOWN), 0.3 + 3.2 * grid[0] * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 1 + CROPS_SHOWN, squeeze=False)
    predicted_RTB = validator.predict(model, device, autocast)
    rows = iter(panels)
    for number, (v, _r, corner, sample) in enumerate(validator.samples(augmented=False)):
        if number not in shown:
            continue
        first, *others = next(rows)
        volume = validator.cache.open(validator.records[v])
        region = validator.intensity(volume.read(corner, validator.plan.region_vox))
        overlaps_TB = sample.overlaps.numpy()
        _draw_region(first, region, grid, size, overlaps_TB[:CROPS_SHOWN], validator.intensity)
        first.set_title(f"held-out volume {v + 1}: region, base grid, random crops", fontsize=9)
        valid_B = sample.bases_valid.numpy()
        for crop in range(CROPS_SHOWN):
            _compare(others[crop], overlaps_TB[crop], predicted_RTB[number][crop], valid_B, grid, SERIES[crop])
    layers = "" if grid[0] == 1 else f", layer by layer ({grid[0]} along z, the highest on top)"
    figure.suptitle(
        f"Overlap of each random crop (left, by colour) with the base crops: true / predicted similarity{layers}"
    )
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


def _draw_region(
    axes: Axes,
    region: np.ndarray,
    grid: tuple[int, int, int],
    size: tuple[int, int, int],
    overlaps_TB: np.ndarray,
    intensity: Intensity,
) -> None:
    """Draw the middle slice of every layer of the grid, and each crop in the layer that holds most of it."""
    height = grid[1] * size[1] + LAYER_GAP
    tops = height * np.arange(grid[0])[::-1]
    tiles = np.full((grid[0] * height - LAYER_GAP, region.shape[2]), np.nan)
    for layer, top in enumerate(tops):
        tiles[top : top + height - LAYER_GAP] = region[layer * size[0] + size[0] // 2]
    axes.imshow(tiles, cmap="gray", vmin=intensity.window[0], vmax=intensity.window[1])
    bases_B3 = base_corners(grid, size)
    for base in bases_B3:
        axes.add_patch(_box(base, tops[base[0] // size[0]], size, edgecolor="white", linewidth=0.8, alpha=0.7))
    by_layer_TZ = overlaps_TB.reshape(len(overlaps_TB), grid[0], -1).sum(axis=2)
    for number, corner in enumerate(_crop_corners(overlaps_TB, bases_B3, size)):
        top = tops[np.argmax(by_layer_TZ[number])]
        axes.add_patch(_box(corner, top, size, edgecolor=SERIES[number], linewidth=2))
    axes.axis("off")


def _compare(
    axes: Axes,
    true_B: np.ndarray,
    predicted_B: np.ndarray,
    valid_B: np.ndarray,
    grid: tuple[int, int, int],
    colour: str,
) -> None:
    """Show predicted similarities as heat maps of the grid's layers, with true / predicted numbers on them."""
    layers, height, width = grid
    cells_ZYX = np.where(valid_B, predicted_B, np.nan).reshape(grid)
    tops = (height + CELL_GAP) * np.arange(layers)[::-1]
    for layer, top in enumerate(tops - 0.5):
        axes.imshow(cells_ZYX[layer], cmap="viridis", vmin=0, vmax=1, extent=(-0.5, width - 0.5, top + height, top))
    axes.set(xlim=(-0.5, width - 0.5), ylim=(tops[0] + height - 0.5, -0.5), xticks=[], yticks=[])
    for cell, (true, predicted, valid) in enumerate(zip(true_B, predicted_B, valid_B, strict=True)):
        z, y, x = (int(n) for n in np.unravel_index(cell, grid))
        text = f"{true:.2f}\n{predicted:.2f}" if valid else "air"
        ink = "black" if valid and predicted > 0.6 else "white" if valid else "gray"
        axes.text(x, tops[z] + y, text, ha="center", va="center", fontsize=9, color=ink)
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=3)


def _crop_corners(overlaps_TB: np.ndarray, bases_B3: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """Recover the crops' corners from their overlaps: the mean of the bases' corners, weighted by overlap."""
    return (overlaps_TB @ bases_B3) / np.maximum(overlaps_TB.sum(axis=1, keepdims=True), 1e-6)


def _box(corner: np.ndarray, top: float, size: tuple[int, int, int], **style: Any) -> Rectangle:
    return Rectangle((corner[2] - 0.5, top + corner[1] - 0.5), size[2], size[1], fill=False, **style)


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
