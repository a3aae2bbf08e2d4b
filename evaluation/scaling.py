"""`voco_scaling`: what more steps, volumes and parameters have brought, and what a further doubling would bring."""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported where needed, so that --help is instant
    import numpy as np

    from nnunetv2_voco.evaluation.power_law import PowerLaw
    from nnunetv2_voco.evaluation.runs import Run

AXES = ("steps", "volumes", "parameters")
MEASURES = {"loss": "intra-volume loss", "error": "position error (1 − accuracy)"}


@dataclass(frozen=True, kw_only=True)
class Series:
    """Measurements that differ in one thing.

    Attributes:
        axis: That thing, one of `AXES`.
        x: Its values.
        y: The measured values by the names of `MEASURES`.
        source: Which runs, in words.
        block: Neighbouring measurements that depend on each other.
        remarks: What to keep in mind.
    """

    axis: str
    x: "np.ndarray"
    y: dict[str, "np.ndarray"]
    source: str
    block: int = 1
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A law for one measure over one axis, and as many from the bootstrap."""

    series: Series
    measure: str
    law: "PowerLaw"
    resampled: "PowerLaw"

    def to_json(self) -> dict[str, Any]:
        """Return the law, what a doubling would bring, and 95 % intervals."""
        from nnunetv2_voco.evaluation.power_law import interval

        largest = float(self.series.x.max())
        falling = self.resampled.exponent[self.resampled.amplitude > 0]
        return {
            "axis": self.series.axis,
            "measure": self.measure,
            "measurements": len(self.series.x),
            "floor": float(self.law.floor[0]),
            "floor_interval": interval(self.resampled.floor),
            "exponent": float(self.law.exponent[0]) if self.law.amplitude[0] > 0 else None,
            "exponent_interval": interval(falling) if falling.size else None,
            "largest": largest,
            "gain_of_doubling": float(self.law.gain_of_doubling(largest)[0]),
            "gain_interval": interval(self.resampled.gain_of_doubling(largest)),
            "source": self.series.source,
            "remarks": list(self.series.remarks),
        }

    def __str__(self) -> str:
        values = self.to_json()
        low, high = values["gain_interval"]
        exponent = "does not fall"
        if values["exponent"] is not None and values["exponent_interval"] is not None:
            exponent = "exponent {:.2f} [{:.2f}, {:.2f}]".format(values["exponent"], *values["exponent_interval"])
        return (
            f"  {MEASURES[self.measure]:30} {exponent}, floor "
            + "{:.3f} [{:.3f}, {:.3f}]".format(values["floor"], *values["floor_interval"])
            + f"; from {values['largest']:,.0f} to {2 * values['largest']:,.0f} it would fall by "
            f"{values['gain_of_doubling']:.4f} [{low:.4f}, {high:.4f}]" + ("" if low > 1e-6 else ": no gain is certain")
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="voco_scaling",
        description="Fit held-out loss and position accuracy of finished voco_pretrain runs against steps, volumes and "
        "parameters (power law with offset, 95 % intervals by bootstrap), plot them, and say what a further doubling "
        "would bring. Runs are compared that differ in one of the three alone.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder that voco_pretrain -o has filled")
    parser.add_argument(
        "-o", dest="out", type=Path, default=Path("scaling"), help="folder to write (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")
    args = parser.parse_args(arguments)

    from nnunetv2_voco.atomic import write_json
    from nnunetv2_voco.evaluation.runs import UnusableRun, read_run
    from nnunetv2_voco.evaluation.scaling_figure import draw_scaling

    runs: list[Run] = []
    for folder in args.runs:
        try:
            runs.append(read_run(folder))
        except UnusableRun as error:
            print(f"left out: {error}")
    if not runs:
        sys.exit("voco_scaling: none of the folders holds a finished run of voco_pretrain")
    for run in runs:
        print(
            f"{run.name}: {run.steps:,} steps, {run.volumes} volumes, {run.parameters:,} parameters; "
            f"loss {run.curve[-1].loss:.3f}, position accuracy {run.curve[-1].accuracy:.1%}"
        )
    fits, gaps = fit_all(runs, seed=args.seed)
    for axis in AXES:
        of_axis = [fit for fit in fits if fit.series.axis == axis]
        print(f"\n{axis}: {of_axis[0].series.source if of_axis else gaps[axis]}")
        for line in (*of_axis, *(f"  note: {remark}" for remark in (of_axis[0].series.remarks if of_axis else ()))):
            print(line)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        write_json(args.out / "scaling.json", {"fits": [fit.to_json() for fit in fits], "not_fitted": gaps})
        if fits:
            draw_scaling(args.out / "scaling.png", fits)
    except OSError as error:
        sys.exit(f"voco_scaling: {error}")
    print(f"\nwrote {args.out / 'scaling.json'}" + (f" and {args.out / 'scaling.png'}" if fits else ""))


def fit_all(runs: Sequence["Run"], *, seed: int = 0) -> tuple[list[Fit], dict[str, str]]:
    """Fit every measure over every axis for which the runs suffice.

    Returns:
        The fits, and for each axis without one the reason.
    """
    import numpy as np

    from nnunetv2_voco.evaluation.power_law import MINIMUM_DISTINCT, bootstrap_power_law, fit_power_law

    fits, gaps = [], {}
    for axis in AXES:
        series = find_series(runs, axis)
        distinct = len(np.unique(series.x))
        if distinct < MINIMUM_DISTINCT:
            others = ", ".join(other for other in AXES if other != axis)
            gaps[axis] = (
                f"not fitted: at most {distinct} different values among runs of equal {others} and settings; "
                f"{MINIMUM_DISTINCT} are needed"
            )
            continue
        for measure, y in series.y.items():
            rng = np.random.default_rng(seed)
            resampled = bootstrap_power_law(series.x, y, rng=rng, block=series.block)
            fits.append(Fit(series=series, measure=measure, law=fit_power_law(series.x, y), resampled=resampled))
    return fits, gaps


def find_series(runs: Sequence["Run"], axis: str) -> Series:
    """Return the largest set of measurements in which nothing but `axis` differs.

    For steps, the validations along one run serve where too few runs of different length are there.
    """
    import numpy as np

    from nnunetv2_voco.evaluation.power_law import MINIMUM_DISTINCT

    groups: dict[tuple, list[Run]] = defaultdict(list)
    for run in runs:
        groups[(run.task, *(getattr(run, other) for other in AXES if other != axis))].append(run)
    group = max(groups.values(), key=lambda members: (len({getattr(run, axis) for run in members}), len(members)))
    group = sorted(group, key=lambda run: getattr(run, axis))
    remarks = []
    if len({run.held_out for run in group}) > 1:
        remarks.append("the runs were measured on different held-out volumes, which adds to the scatter")
    points = [(getattr(run, axis), run.curve[-1]) for run in group]
    source, block = f"{len(group)} runs: {', '.join(run.name for run in group)}", 1
    if axis == "steps" and len({x for x, _ in points}) < MINIMUM_DISTINCT:
        longest = max(runs, key=lambda run: len({m.step for m in run.curve}))
        points = [(measurement.step, measurement) for measurement in longest.curve]
        source, block = f"{len(points)} validations along the run {longest.name}", max(1, round(len(points) ** (1 / 3)))
        remarks = [
            "the learning rate falls along a run, so these are not the values that shorter runs would have reached"
        ]
    return Series(
        axis=axis,
        x=np.array([x for x, _ in points], float),
        y={"loss": np.array([m.loss for _, m in points]), "error": np.array([1 - m.accuracy for _, m in points])},
        source=source,
        block=block,
        remarks=tuple(remarks),
    )
