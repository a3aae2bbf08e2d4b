"""The results as rows of text, for table.md and report.html alike."""

import math
from collections.abc import Callable, Sequence

from nnunetv2_voco.evaluation.benchmark.comparisons import Comparison, Group, Speed
from nnunetv2_voco.evaluation.benchmark.config import SCRATCH
from nnunetv2_voco.evaluation.benchmark.statistics import Interval

START = ("labelled cases", "schedule", "start")
"""Columns with which every row starts."""

DICE = (*START, "runs", "Dice", "difference to scratch", "error reduction", "epochs to scratch's final Dice")
SURFACES = (*START, "HD95 mm", "difference to scratch", "NSD", "difference to scratch")
"""Columns of the two tables."""

LEGEND = (
    "Dice, HD95 and NSD: mean over runs and validation cases, classes averaged within a case. Differences: pre-trained "
    "minus scratch, paired by fold, seed and case, with the 95 % interval of a bootstrap over folds, seeds and cases. "
    "Error: 1 − Dice. HD95 leaves out cases where a class is not predicted; NSD counts them as 0. Epochs: median over "
    "pairs of runs until nnU-Net's pseudo Dice, averaged over a tenth of the epochs, reaches the value with which the "
    "twin from scratch ends; in parentheses, when the twin itself first did."
)

CONTROL_LEGEND = (
    " A control is another start from scratch, with other initial values than the twin's: its difference to the other "
    "starts is chance, and weights whose difference is no larger have shown nothing. Weights are compared with the "
    "mean of all starts from scratch of their fold and seed."
)
"""Follows `LEGEND` where there are such runs."""

PAIRS_FOR_A_VERDICT = 5
"""With fewer pairs of runs the spread between seeds is not known: where nothing differs but chance, the interval misses
0 in one of six experiments with three pairs, in one of twelve with five (seeds that differ by 0.08 in Dice, 8 cases).
"""


def dice_rows(groups: Sequence[Group], comparisons: Sequence[Comparison]) -> list[list[str]]:
    """Return one row of text per group, in the columns of `DICE`."""
    rows = []
    for group, comparison in _with_comparison(groups, comparisons):
        row = [*_start(group), str(len(group.results)), plain(group.dice.value)]
        if comparison is not None:
            compared = (signed(comparison.dice), percent(comparison.error_reduction), epochs(comparison.speed))
            rows.append([*row, *compared])
        else:
            rows.append([*row, "" if group.initialisation == SCRATCH else "no twin yet", "", ""])
    return rows


def surface_rows(groups: Sequence[Group], comparisons: Sequence[Comparison]) -> list[list[str]]:
    """Return one row of text per group, in the columns of `SURFACES`."""
    rows = []
    for group, comparison in _with_comparison(groups, comparisons):
        hd95, nsd = ("", "") if comparison is None else (signed(comparison.hd95_mm, 2), signed(comparison.nsd))
        rows.append([*_start(group), plain(group.hd95_mm.value, 2), hd95, plain(group.nsd.value), nsd])
    return rows


def has_surfaces(groups: Sequence[Group]) -> bool:
    """Whether surface distances were measured at all."""
    return any(not math.isnan(group.nsd.value) for group in groups)


def markdown(title: str, groups: Sequence[Group], comparisons: Sequence[Comparison]) -> str:
    """Return a heading and tables for each data set and configuration."""
    parts = [f"# {title}"]
    for name in dict.fromkeys(place(group) for group in groups):
        chosen = [group for group in groups if place(group) == name]
        parts += ["", f"## {name}", "", *_markdown_table(DICE, dice_rows(chosen, comparisons))]
        if has_surfaces(chosen):
            parts += ["", *_markdown_table(SURFACES, surface_rows(chosen, comparisons))]
    return "\n".join([*parts, "", legend(groups), ""])


def legend(groups: Sequence[Group]) -> str:
    """Say how to read the tables of these groups."""
    return LEGEND + (CONTROL_LEGEND if any(group.is_control for group in groups) else "")


def place(group: Group) -> str:
    """Name data set and configuration."""
    return f"{group.setting.dataset}, {group.setting.configuration}"


def sentence(comparison: Comparison) -> str:
    """Say in words what pre-training was worth in one setting."""
    setting, speed = comparison.group.setting, comparison.speed
    schedule = "" if setting.schedule == "stock" else f" ({setting.schedule})"
    few = comparison.pairs < PAIRS_FOR_A_VERDICT
    verb = "changes nothing that can be told from chance"
    if comparison.group.is_control:
        verb = "another start from scratch, whose difference is chance"
    elif comparison.pairs == 1:
        verb = "one pair of runs cannot tell this from chance"
    elif comparison.dice.is_above_zero:
        verb = "seems to help" if few else "helps"
    elif comparison.dice.is_below_zero:
        verb = "seems to harm" if few else "harms"
    return (
        f"{comparison.group.initialisation}{schedule}, {cases(setting.training_cases)}: {verb}. "
        f"Dice {signed(comparison.dice)}, error reduction {percent(comparison.error_reduction)}; scratch's final "
        f"pseudo Dice {_reached(speed)}. {comparison.pairs} {'pair' if comparison.pairs == 1 else 'pairs'} of runs, "
        f"{cases(comparison.cases, 'validation')}."
    )


def cases(count: int, kind: str = "labelled") -> str:
    """Write "1 labelled case", "8 labelled cases"."""
    return f"{count} {kind} {'case' if count == 1 else 'cases'}"


def signed(value: Interval, digits: int = 3) -> str:
    """Write a difference with its interval."""
    return _with_bounds(value, lambda number: f"{_without_negative_zero(number, digits):+.{digits}f}".replace("-", "−"))


def percent(value: Interval) -> str:
    """Write a share with its interval."""
    return _with_bounds(value, lambda number: f"{_without_negative_zero(100 * number, 0):.0f} %".replace("-", "−"))


def plain(value: float, digits: int = 3) -> str:
    """Write a number; a dash if it is not known."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def epochs(speed: Speed) -> str:
    """Write after how many of the epochs the twin's final value is reached."""
    twin = f"{speed.twin:.0f}" if math.isfinite(speed.twin) else "–"
    if math.isinf(speed.other):
        return f"not in {speed.epochs} ({twin})"
    never = f"; {speed.never} of {speed.pairs} never" if speed.never else ""
    return f"{speed.other:.0f} of {speed.epochs} ({twin}{never})"


def _reached(speed: Speed) -> str:
    if math.isinf(speed.other):
        return "not reached by half of the runs"
    return f"reached after {speed.other:.0f} of {speed.epochs} epochs (scratch itself: {speed.twin:.0f})"


def _without_negative_zero(number: float, digits: int) -> float:
    return round(number, digits) + 0.0


def _with_bounds(value: Interval, write: Callable[[float], str]) -> str:
    if math.isnan(value.value):
        return "–"
    return f"{write(value.value)} [{write(value.low)}, {write(value.high)}]"


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]


def _with_comparison(
    groups: Sequence[Group], comparisons: Sequence[Comparison]
) -> list[tuple[Group, Comparison | None]]:
    by_group = {(c.group.setting, c.group.initialisation): c for c in comparisons}
    return [(group, by_group.get((group.setting, group.initialisation))) for group in groups]


def _start(group: Group) -> list[str]:
    return [str(group.setting.training_cases), group.setting.schedule, group.initialisation]
