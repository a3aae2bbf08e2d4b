"""Figures of the report: label efficiency, paired differences, convergence."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_voco.evaluation.benchmark.comparisons import Comparison, Group
from nnunetv2_voco.evaluation.benchmark.curves import smoothed
from nnunetv2_voco.evaluation.benchmark.table import cases, plain, signed
from nnunetv2_voco.evaluation.page import Drawing
from nnunetv2_voco.evaluation.page_style import INK, SERIES
from nnunetv2_voco.evaluation.svg import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 4.6, 3.1
MARKERS = "os^Dv*Px"


class Looks:
    """Colour and marker of each initialisation, the same in all figures of a page."""

    def __init__(self, names: Sequence[str]) -> None:
        self._number = {name: number for number, name in enumerate(dict.fromkeys(names))}

    def colour(self, name: str) -> str:
        """Return the colour of a line."""
        return SERIES[self._number[name] % len(SERIES)]

    def marker(self, name: str) -> str:
        """Return the marker, which tells lines apart without colour."""
        return MARKERS[self._number[name] % len(MARKERS)]


def label_efficiency(groups: Sequence[Group], looks: Looks) -> Drawing:
    """Dice against the number of labelled cases, a line for each initialisation; bars are 95 % intervals."""
    figure, axes_array = new_figure(WIDTH, HEIGHT)
    axes: Axes = axes_array[0, 0]
    names = list(dict.fromkeys(group.initialisation for group in groups))
    for number, name in enumerate(names):
        chosen = [group for group in groups if group.initialisation == name]
        x = np.array([group.setting.training_cases for group in chosen]) * 1.03 ** (number - (len(names) - 1) / 2)
        y = np.array([group.dice.value for group in chosen])
        bars = np.array([[g.dice.value - g.dice.low, g.dice.high - g.dice.value] for g in chosen]).T
        axes.errorbar(x, y, np.clip(bars, 0, None), label=name, color=looks.colour(name), marker=looks.marker(name),
                      markersize=4, elinewidth=1, capsize=2)  # fmt: skip
    counts = sorted({group.setting.training_cases for group in groups})
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("labelled cases")
    axes.set_ylabel("Dice")
    axes.legend()
    said = "; ".join(f"{g.initialisation} with {g.setting.training_cases}: {plain(g.dice.value)}" for g in groups)
    return Drawing(figure, alt=f"Dice by number of labelled cases. {said}", caption="Dice by labelled cases")


def differences(comparisons: Sequence[Comparison], looks: Looks) -> Drawing:
    """Paired difference of Dice in each setting, with its interval, beside zero."""
    figure, axes_array = new_figure(WIDTH, max(1.4, 0.7 + 0.28 * len(comparisons)))
    axes: Axes = axes_array[0, 0]
    names = []
    for y, comparison in enumerate(comparisons):
        name, value = comparison.group.initialisation, comparison.dice
        bars = np.clip([[value.value - value.low], [value.high - value.value]], 0, None)
        axes.errorbar([value.value], [y], xerr=bars, color=looks.colour(name), marker=looks.marker(name),
                      markersize=5, capsize=3)  # fmt: skip
        names.append(f"{name}, {comparison.group.setting.training_cases}")
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("Dice, pre-trained minus scratch")
    said = "; ".join(f"{name}: {signed(c.dice)}" for name, c in zip(names, comparisons, strict=True))
    caption = "Paired difference and its 95 % interval, by start and labelled cases"
    return Drawing(figure, alt=f"Paired differences of Dice. {said}", caption=caption)


def convergence(groups: Sequence[Group], looks: Looks) -> Drawing:
    """Smoothed pseudo Dice by epoch in one setting: the mean over runs, and the range of the runs as a band."""
    figure, axes_array = new_figure(WIDTH, HEIGHT)
    axes: Axes = axes_array[0, 0]
    said, ends = [], []
    for group in groups:
        length = min(len(result.curve.pseudo_dice) for result in group.results)
        values = np.array([smoothed(result.curve.pseudo_dice)[:length] for result in group.results])
        x, colour = np.arange(1, length + 1), looks.colour(group.initialisation)
        (line,) = axes.plot(x, values.mean(0), label=group.initialisation, color=colour)
        line.set(marker=looks.marker(group.initialisation), markersize=4, markevery=math.ceil(length / 8))
        axes.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
        said.append(f"{group.initialisation} ends at {values.mean(0)[-1]:.3f}")
        if group.from_scratch:
            ends.append(values.mean(0)[-1])
    if ends:
        axes.axhline(float(np.mean(ends)), color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xlabel("epoch")
    axes.set_ylabel("pseudo Dice")
    axes.legend()
    return Drawing(
        figure,
        alt=f"Pseudo Dice by epoch: {'; '.join(said)}",
        caption=f"{cases(groups[0].setting.training_cases)}; dashed: where scratch ends",
    )
