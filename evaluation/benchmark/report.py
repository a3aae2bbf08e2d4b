"""report.html and table.md of a benchmark."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from nnunetv2_voco.atomic import write_atomically
from nnunetv2_voco.evaluation.benchmark.collect import Result
from nnunetv2_voco.evaluation.benchmark.comparisons import Comparison, Group, compare, group_results
from nnunetv2_voco.evaluation.benchmark.figures import Looks, convergence, differences, label_efficiency
from nnunetv2_voco.evaluation.benchmark.run import COPY, Run, read_manifest
from nnunetv2_voco.evaluation.benchmark.table import (
    DICE,
    SURFACES,
    dice_rows,
    has_surfaces,
    legend,
    markdown,
    place,
    sentence,
    surface_rows,
)
from nnunetv2_voco.evaluation.page import Cell, Page

DIFFERENCE_COLUMN = DICE.index("difference to scratch")


def write_report(out: Path, runs: Sequence[Run], results: Sequence[Result], *, title: str) -> list[str]:
    """Write table.md, report.html and its figures into the benchmark's folder.

    Args:
        out: The folder.
        runs: All runs, finished or not.
        results: The finished ones.
        title: Heading of both.

    Returns:
        What the comparisons say, a sentence each.
    """
    groups = group_results(results)
    comparisons = compare(groups)
    text = markdown(title, groups, comparisons)
    write_atomically(out / "table.md", lambda temporary: temporary.write_text(text, encoding="utf-8"))
    page = build_page(runs, groups, comparisons, title=title)
    _add_origin(page, out)
    page.write(out / "report.html")
    page.write_drawings(out / "figures")
    return [sentence(comparison) for comparison in comparisons]


def build_page(runs: Sequence[Run], groups: Sequence[Group], comparisons: Sequence[Comparison], *, title: str) -> Page:
    """Return the report."""
    finished = sum(len(group.results) for group in groups)
    page = Page(
        title,
        lead="What pre-trained weights are worth in nnU-Net: the same network, schedule, cases and seeds, started from "
        "the weights and from scratch.",
    )
    if finished < len(runs):
        page.note(f"{finished} of {len(runs)} runs are finished; the figures below are of these.", tone="bad")
    looks = Looks([run.initialisation for run in runs])
    for name in dict.fromkeys(place(group) for group in groups):
        here = [group for group in groups if place(group) == name]
        compared = [comparison for comparison in comparisons if place(comparison.group) == name]
        _add_place(page, name, here, compared, looks)
    page.heading("How to read it")
    page.paragraph(legend(groups))
    page.paragraph(
        "A bootstrap over few seeds cannot know how other seeds would have spread: with three, an interval misses zero "
        "by chance alone in about one experiment of six. Every number can be computed again from `results.csv` and "
        "`curves.csv`."
    )
    return page


def _add_place(page: Page, name: str, groups: Sequence[Group], comparisons: Sequence[Comparison], looks: Looks) -> None:
    page.heading(name)
    if groups[0].results[0].run.about:
        page.paragraph(groups[0].results[0].run.about)
    fewest = min(group.setting.training_cases for group in groups)
    for comparison in comparisons:
        if comparison.group.setting.training_cases == fewest:  # where pre-training is to help most; others: the table
            page.note(sentence(comparison), tone=_tone(comparison))
    for schedule in dict.fromkeys(group.setting.schedule for group in groups):
        here = [group for group in groups if group.setting.schedule == schedule]
        compared = [item for item in comparisons if item.group.setting.schedule == schedule]
        page.heading(f"{name}: schedule {schedule}", level=3)
        drawings = [label_efficiency(here, looks)]
        if compared:
            drawings.append(differences(compared, looks))
        page.drawings(drawings)
        settings = dict.fromkeys(group.setting for group in here)
        page.drawings([convergence([g for g in here if g.setting == setting], looks) for setting in settings])
    rows: list[list[object]] = [list(row) for row in dice_rows(groups, comparisons)]
    tones = {(c.group.setting, c.group.initialisation): _tone(c) for c in comparisons}
    for group, row in zip(groups, rows, strict=True):
        tone = tones.get((group.setting, group.initialisation), "")
        row[DIFFERENCE_COLUMN] = Cell(str(row[DIFFERENCE_COLUMN]), tone=tone)
    page.table(DICE, rows, caption=f"{name}: Dice")
    if has_surfaces(groups):
        tolerance = f"{groups[0].results[0].run.nsd_tolerance_mm:g} mm"
        caption = f"{name}: HD95, and NSD at {tolerance}"
        page.table(SURFACES, surface_rows(groups, comparisons), caption=caption)
    _add_classes(page, name, groups)


def _add_classes(page: Page, name: str, groups: Sequence[Group]) -> None:
    """Add Dice by class where there are several."""
    labels = list(dict.fromkeys(score.label for group in groups for result in group.results for score in result.scores))
    if len(labels) < 2:
        return
    rows = []
    for group in groups:
        values: dict[str, list[float]] = {label: [] for label in labels}
        for result in group.results:
            for score in result.scores:
                if score.dice == score.dice:
                    values[score.label].append(score.dice)
        means = [f"{sum(v) / len(v):.3f}" if v else "–" for v in values.values()]
        rows.append([str(group.setting.training_cases), group.setting.schedule, group.initialisation, *means])
    page.table(["labelled cases", "schedule", "start", *labels], rows, caption=f"{name}: Dice by class")


def _add_origin(page: Page, out: Path) -> None:
    """Say with what, and by which file, the runs were made."""
    _, machine = read_manifest(out)
    versions = ", ".join(f"{package} {version(package)}" for package in ("nnunetv2_voco", "nnunetv2", "torch"))
    threads = f", {machine.threads} {'thread' if machine.threads == 1 else 'threads'} a run"
    page.heading("How to do it again")
    page.paragraph(f"{versions}; {machine.device}{threads if machine.device == 'cpu' else ''}.")
    if (out / COPY).is_file():
        page.paragraph("`voco_benchmark` with this file:")
        page.code((out / COPY).read_text(encoding="utf-8"))


def _tone(comparison: Comparison) -> str:
    if comparison.group.is_control:
        return ""
    if comparison.dice.is_above_zero:
        return "good"
    return "bad" if comparison.dice.is_below_zero else ""
