"""The pictures of a run: progress.png, samples.png, volumes.png."""

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
from nnunetv2_voco.pretrain.log import read_records
from nnunetv2_voco.pretrain.model import VoCoModel
from nnunetv2_voco.pretrain.validation import Validator

SAMPLES_SHOWN = 4
CROPS_SHOWN = 3
VOLUMES_SHOWN = 40
SERIES = ("#1f5aa6", "#c2541b", "#2e8b57", "#7a4fa3", "#b08900")
CHANCE = "#777777"
VOLUME_SIDE = 256
"""Longest side of a slice in volumes.png, in pixels; larger slices are thinned."""


def draw_progress(out: Path) -> None:
    """Draw losses with their chance lines, accuracy, learning rate and similarities from the run's log."""
    records = read_records(out / "log.jsonl")
    training = [r for r in records if r["kind"] == "training"]
    validation = [r for r in records if r["kind"] == "validation"]
    figure = Figure(figsize=(13, 8), layout="constrained")
    losses, accuracy, rates, similarities = figure.subplots(2, 2).ravel()

    for name, colour in zip(("total", "intra", "inter", "reg", "place"), SERIES, strict=True):
        _line(losses, training, name, label=f"{name}, training", color=colour, alpha=0.8, linewidth=1)
    _line(losses, validation, "intra", label="intra, held out", color="black", marker="o")
    if validation:
        for name, text, style in (
            ("chance_constant", "best constant guess (intra)", "--"), ("chance_zero", "all similarities 0 (intra)", ":")
        ):  # fmt: skip
            losses.axhline(
                validation[-1][name], color=CHANCE, linestyle=style, label=f"{text}: {validation[-1][name]:.3f}"
            )
    losses.set(title="Losses", xlabel="step", ylim=(0, None))

    for name, text, colour in (
        ("accuracy", "held-out crops", "black"),
        ("accuracy_augmented", "crop and base augmented apart", SERIES[0]),
        ("accuracy_across", "bases of another volume", SERIES[1]),
    ):
        _line(accuracy, validation, name, label=text, color=colour, marker="o", markersize=4)
    if validation:
        untrained, blind = validation[0]["untrained_accuracy"], validation[0]["blind"]
        accuracy.axhline(untrained, color=CHANCE, linestyle="--", label=f"untrained encoder: {untrained:.0%}")
        accuracy.axhline(blind, color=CHANCE, linestyle=":", label=f"blind guess: {blind:.0%}")
    accuracy.set(title="Position accuracy", xlabel="step", ylim=(0, 1))

    _line(rates, training, "lr", label="learning rate", color=SERIES[0])
    rates.set(title="Learning rate and weight of the inter-volume loss", xlabel="step", ylim=(0, None))
    weight = rates.twinx()
    _line(weight, training, "inter_weight", label="inter-volume weight (right)", color=SERIES[1])
    weight.set_ylim(0, 1.05 * max([1e-6, *(r["inter_weight"] for r in training)]))
    _legend(weight, "upper right")

    for name, text, colour in (
        ("positives", "crop and its best base", SERIES[2]),
        ("negatives", "crop and bases without overlap", SERIES[1]),
        ("spread", "spread of the embeddings (0 = collapsed)", SERIES[3]),
    ):
        _line(similarities, validation, name, label=text, color=colour, marker="o", markersize=4)
    similarities.set(title="Similarity on held-out volumes", xlabel="step", ylim=(0, 1.05))

    for axes in (losses, accuracy, rates, similarities):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        _legend(axes, "upper left" if axes is rates else "best")
    _save(figure, out / "progress.png")


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
    _save(figure, path)


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
    _save(figure, path)


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


def _line(axes: Axes, records: list[dict[str, Any]], name: str, **style: Any) -> None:
    points = [(r["step"], r[name]) for r in records if r.get(name) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), **style)


def _legend(axes: Axes, place: str) -> None:
    """Add a legend if anything was drawn."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc=place, frameon=False, fontsize=9)


def _spread(items: list, most: int) -> list:
    """At most `most` items, evenly spread over the list."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _shorten(name: str, length: int) -> str:
    return name if len(name) <= length else "…" + name[-(length - 1) :]


def _save(figure: Figure, path: Path) -> None:
    canvas = FigureCanvasAgg(figure)
    write_atomically(path, lambda temporary: canvas.print_png(str(temporary)))
