"""progress.png: what the log of a run says, as curves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnunetv2_voco.pretrain.figures import SERIES, save_figure
from nnunetv2_voco.pretrain.log import read_records

CHANCE = "#777777"

Records = list[dict[str, Any]]


def draw_progress(out: Path) -> None:
    """Draw losses with their chance lines, accuracy, Dice, learning rate and similarities, as far as a run has them."""
    records = read_records(out / "log.jsonl")
    training = [r for r in records if r["kind"] == "training"]
    validation = [r for r in records if r["kind"] == "validation"]
    contrast = not validation or "intra" in validation[0]
    panels: list[Callable[[Axes, Records, Records], None]] = [draw_losses, draw_accuracy] if contrast else []
    if validation and "dice" in validation[0]:
        panels += [draw_label_losses, draw_dice]
    panels += [draw_rates, draw_similarities] if contrast else [draw_rates]
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(13, 4 * rows), layout="constrained")
    all_axes = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes in all_axes[len(panels) :]:
        axes.axis("off")
    for draw, axes in zip(panels, all_axes, strict=False):
        draw(axes, training, validation)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        _legend(axes, "upper left" if draw is draw_rates else "best")
    save_figure(figure, out / "progress.png")


def draw_losses(axes: Axes, training: Records, validation: Records) -> None:
    """Draw VoCo's losses with their chance lines."""
    for name, colour in zip(("total", "intra", "inter", "reg", "place", "decoder"), SERIES, strict=True):
        if name != "decoder" or any(_values(training, name)):
            _line(axes, training, name, label=f"{name}, training", color=colour, alpha=0.8, linewidth=1)
    _line(axes, validation, "intra", label="intra, held out", color="black", marker="o")
    for name, text, style in (
        ("chance_constant", "best constant guess (intra)", "--"), ("chance_zero", "all similarities 0 (intra)", ":")
    ) if validation else ():  # fmt: skip
        axes.axhline(validation[-1][name], color=CHANCE, linestyle=style, label=f"{text}: {validation[-1][name]:.3f}")
    axes.set(title="Losses", xlabel="step", ylim=(min([0, *_values(training, "total")]), None))


def draw_accuracy(axes: Axes, training: Records, validation: Records) -> None:
    """Draw the position accuracy beside that of the untrained encoder."""
    for name, text, colour in (
        ("accuracy", "held-out crops", "black"),
        ("accuracy_augmented", "crop and base augmented apart", SERIES[0]),
        ("accuracy_across", "bases of another volume", SERIES[1]),
    ):
        _line(axes, validation, name, label=text, color=colour, marker="o", markersize=4)
    if validation:
        untrained, blind = validation[0]["untrained_accuracy"], validation[0]["blind"]
        axes.axhline(untrained, color=CHANCE, linestyle="--", label=f"untrained encoder: {untrained:.0%}")
        axes.axhline(blind, color=CHANCE, linestyle=":", label=f"blind guess: {blind:.0%}")
    axes.set(title="Position accuracy", xlabel="step", ylim=(0, 1))


def draw_label_losses(axes: Axes, training: Records, validation: Records) -> None:
    """Draw Dice and cross-entropy on labelled patches and on pseudo-labels."""
    _line(axes, training, "labelled", label="labelled patches", color=SERIES[0], linewidth=1)
    pseudo = [record for record in training if record["pseudo"]]
    _line(axes, pseudo, "pseudo", label="pseudo-labels", color=SERIES[1], linewidth=1)
    axes.set(title="Dice and cross-entropy, as nnU-Net's loss", xlabel="step")


def draw_dice(axes: Axes, training: Records, validation: Records) -> None:
    """Draw Dice on labelled patches for validation: every class, and the mean."""
    classes = [name for name in validation[-1] if name.startswith("dice ")]
    for name in classes:
        _line(axes, validation, name, color=CHANCE, alpha=0.4, linewidth=1)
    _line(axes, validation, "dice", label=f"mean of {len(classes)} classes", color="black", marker="o", markersize=4)
    axes.set(title="Dice on labelled patches for validation", xlabel="step", ylim=(0, 1))


def draw_rates(axes: Axes, training: Records, validation: Records) -> None:
    """Draw the learning rate and, where there is such a loss, the weight of the inter-volume loss."""
    _line(axes, training, "lr", label="learning rate", color=SERIES[0])
    axes.set(title="Learning rate", xlabel="step", ylim=(0, None))
    if not any("inter_weight" in record and "intra" in record for record in training):
        return
    axes.set(title="Learning rate and weight of the inter-volume loss")
    weight = axes.twinx()
    _line(weight, training, "inter_weight", label="inter-volume weight (right)", color=SERIES[1])
    weight.set_ylim(0, 1.05 * max([1e-6, *(r["inter_weight"] for r in training)]))
    _legend(weight, "upper right")


def draw_similarities(axes: Axes, training: Records, validation: Records) -> None:
    """Draw similarities and spread of the embeddings."""
    for name, text, colour in (
        ("positives", "crop and its best base", SERIES[2]),
        ("negatives", "crop and bases without overlap", SERIES[1]),
        ("spread", "spread of the embeddings (0 = collapsed)", SERIES[3]),
    ):
        _line(axes, validation, name, label=text, color=colour, marker="o", markersize=4)
    axes.set(title="Similarity on held-out volumes", xlabel="step", ylim=(0, 1.05))


def _values(records: Records, name: str) -> list[float]:
    return [record[name] for record in records if record.get(name) is not None]


def _line(axes: Axes, records: list[dict[str, Any]], name: str, **style: Any) -> None:
    points = [(r["step"], r[name]) for r in records if r.get(name) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), **style)


def _legend(axes: Axes, place: Literal["best", "upper left", "upper right"]) -> None:
    """Add a legend if anything was drawn."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc=place, frameon=False, fontsize=9)
