"""The picture of `voco_scaling`: one panel per measure and axis, the law with its band, and the doubling."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nnunetv2_voco.atomic import write_atomically
from nnunetv2_voco.evaluation.power_law import interval
from nnunetv2_voco.evaluation.scaling import AXES, MEASURES, Fit


def draw_scaling(path: Path, fits: Sequence[Fit]) -> None:
    """Write the picture as PNG, atomically."""
    axes = [axis for axis in AXES if any(fit.series.axis == axis for fit in fits)]
    figure = Figure(figsize=(4.2 * len(axes), 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(MEASURES), len(axes), squeeze=False)
    for fit in fits:
        panel = panels[list(MEASURES).index(fit.measure), axes.index(fit.series.axis)]
        x = fit.series.x
        grid = np.geomspace(x.min(), 2 * x.max(), 60)
        band = np.array([interval(fit.resampled(value)) for value in grid])
        panel.fill_between(grid, band[:, 0], band[:, 1], alpha=0.2, linewidth=0, label="95 % interval")
        panel.plot(grid, [fit.law(value)[0] for value in grid], label="power law with floor")
        panel.plot(x, fit.series.y[fit.measure], "o", markersize=4, color="black", label="measured")
        panel.axvline(2 * x.max(), linestyle=":", color="grey", label="doubled")
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        panel.tick_params(axis="x", labelrotation=30)
        panel.set_xlabel("encoder parameters" if fit.series.axis == "parameters" else fit.series.axis)
        panel.set_ylabel(MEASURES[fit.measure])
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=8)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=120))
