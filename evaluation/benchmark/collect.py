"""From the folders of finished runs to measurements, and to tidy tables of them."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_voco.atomic import write_atomically
from nnunetv2_voco.evaluation.benchmark.curves import Curve
from nnunetv2_voco.evaluation.benchmark.run import Run
from nnunetv2_voco.evaluation.benchmark.surface import case_name, read_scores

RUN_COLUMNS = (
    "dataset", "configuration", "initialisation", "schedule", "labels", "training_cases", "fold", "seed",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Score:
    """What was measured for one class of one case; NaN where it is not defined.

    Attributes:
        case: Name of the case.
        label: Name of the class or region.
        dice: nnU-Net's; NaN if the class is neither there nor predicted.
        hd95_mm: 95th percentile of the surface distances; NaN unless the class is there and predicted.
        nsd: Normalised surface Dice; 0 if the class is there or predicted, but not both.
    """

    case: str
    label: str
    dice: float
    hd95_mm: float = math.nan
    nsd: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished run with its measurements."""

    run: Run
    scores: tuple[Score, ...]
    curve: Curve


def collect(out: Path, runs: Sequence[Run]) -> list[Result]:
    """Read every run that nnU-Net has evaluated.

    Raises:
        ValueError: If a file of a run cannot be read; the message names it.
    """
    return [read_result(out, run) for run in runs if run.summary(out).is_file()]


def read_result(out: Path, run: Run) -> Result:
    """Read one finished run.

    Raises:
        ValueError: If one of its files is damaged.
    """
    dataset = _read(run.folder(out).parent / "dataset.json")
    names = {_key(value): name for name, value in dataset["labels"].items()}
    surfaces = read_scores(out, run) or {}
    scores = []
    for entry in _read(run.summary(out))["metric_per_case"]:
        case = case_name(entry["prediction_file"], dataset["file_ending"])
        for key, metrics in entry["metrics"].items():
            surface = surfaces.get(case, {}).get(key, {})
            scores.append(
                Score(
                    case=case,
                    label=names.get(key, key),
                    dice=_number(metrics["Dice"]),
                    hd95_mm=_number(surface.get("hd95_mm")),
                    nsd=_number(surface.get("nsd")),
                )
            )
    return Result(run=run, scores=tuple(scores), curve=Curve(**_read(run.curve(out))))


def write_tables(out: Path, runs: Sequence[Run], results: Sequence[Result]) -> None:
    """Write results.csv (run × case × class), runs.csv (run) and curves.csv (run × epoch)."""
    _write_csv(
        out / "results.csv",
        [*RUN_COLUMNS, "run", "case", "class", "dice", "hd95_mm", "nsd", "nsd_tolerance_mm"],
        (
            [
                *_attributes(result.run), result.run.id, score.case, score.label,
                _text(score.dice), _text(score.hd95_mm), _text(score.nsd), result.run.nsd_tolerance_mm,
            ]
            for result in results
            for score in result.scores
        ),
    )  # fmt: skip
    by_id = {result.run.id: result for result in results}
    _write_csv(
        out / "runs.csv",
        [*RUN_COLUMNS, "run", "finished", "validation_cases", "dice", "epochs", "training_seconds", "trainer", "plans"],
        (
            [
                *_attributes(run), run.id, int(run.id in by_id), run.validation_cases,
                *_summary(by_id.get(run.id)), run.trainer, run.plans,
            ]
            for run in runs
        ),
    )  # fmt: skip
    columns = ("train_loss", "val_loss", "pseudo_dice", "lr", "seconds")
    _write_csv(
        out / "curves.csv",
        [*RUN_COLUMNS, "run", "epoch", *columns],
        (
            [*_attributes(result.run), result.run.id, epoch, *map(_text, values)]
            for result in results
            for epoch, values in enumerate(
                zip(*(getattr(result.curve, column) for column in columns), strict=True), start=1
            )
        ),
    )


def _summary(result: Result | None) -> list[object]:
    if result is None:
        return ["", "", ""]
    dice = [score.dice for score in result.scores if not math.isnan(score.dice)]
    mean = sum(dice) / len(dice) if dice else math.nan
    return [_text(mean), len(result.curve.pseudo_dice), f"{sum(result.curve.seconds):.1f}"]


def _attributes(run: Run) -> list[object]:
    return [getattr(run, column) for column in RUN_COLUMNS]


def _write_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomically(file, lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8"))


def _text(value: float) -> str:
    """Write a number so that it is read back exactly; nothing if it is not defined."""
    return "" if math.isnan(value) else repr(float(value))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _key(label: int | list[int]) -> str:
    """Name a label or region as nnU-Net's summary does."""
    return str(tuple(label)) if isinstance(label, list) else str(label)


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: cannot be read ({error}); remove the run's folder and run it again") from None
