"""What the demo's two trainings came to, read from nnU-Net's own files."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_voco.evaluation.benchmark.statistics import Interval, difference, interval
from nnunetv2_voco.evaluation.demo.story import PLANS, Story

TRANSFER_FILE = "voco_transfer.json"
"""The trainers' account of what was loaded, beside nnU-Net's logs."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Measurements of both trainings.

    Attributes:
        organs: Names of the labels.
        look_alikes: Groups of organs that differ by their place only.
        dice: For each training its Dice, (cases, organs); NaN where an organ is neither there nor predicted.
        curves: For each training nnU-Net's pseudo Dice after each epoch.
        transfer: The account of the transfer.
        pretraining: Position accuracy of the pre-trained and of the untrained encoder, and of a blind guess.
    """

    organs: tuple[str, ...]
    look_alikes: tuple[tuple[str, ...], ...]
    dice: dict[str, np.ndarray]
    curves: dict[str, list[float]]
    transfer: dict[str, Any]
    pretraining: dict[str, float]

    def mean(self, start: str, organs: list[str] | None = None) -> float:
        """Return the mean Dice of a training over cases and organs."""
        columns = [self.organs.index(name) for name in organs or self.organs]
        return float(np.nanmean(self.dice[start][:, columns]))

    @property
    def difference(self) -> Interval:
        """Mean Dice with weights minus that without, and its 95 % interval over the test cases."""
        per_case = np.stack([np.nanmean(self.dice[start], axis=1) for start in ("scratch", "VoCo")])
        return interval([per_case[:, None, :]], difference)


def read_outcome(story: Story) -> Outcome:
    """Read everything that the report shows.

    Raises:
        OSError: If a file is not there: a step was not done.
    """
    description = _json(story.raw / "dataset.json")
    organs = tuple(name for name, value in description["labels"].items() if value != 0)
    values = [str(description["labels"][name]) for name in organs]
    log = [json.loads(line) for line in (story.encoder.parent / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [record for record in log if record["kind"] == "validation"][-1]
    return Outcome(
        organs=organs,
        look_alikes=tuple(tuple(group) for group in description["look_alikes"]),
        dice={start: read_dice(story.predictions(start) / "summary.json", values) for start in PLANS},
        curves={start: read_curve(story.model(plans)) for start, plans in PLANS.items()},
        transfer=_json(story.model(PLANS["VoCo"]) / TRANSFER_FILE)["transfer"],
        pretraining={name: last[name] for name in ("accuracy", "untrained_accuracy", "blind", "crops")},
    )


def read_dice(summary: Path, labels: list[str]) -> np.ndarray:
    """Read nnU-Net's Dice from a summary.json, (cases, labels), cases by name."""
    cases = sorted(_json(summary)["metric_per_case"], key=lambda case: case["prediction_file"])
    return np.array([[_number(case["metrics"][label]["Dice"]) for label in labels] for case in cases])


def read_curve(fold: Path) -> list[float]:
    """Read the pseudo Dice of each epoch from nnU-Net's last checkpoint."""
    from nnunetv2_voco.foreign import read_content  # loads torch: too slow for --help

    logging = read_content(fold / "checkpoint_final.pth")["logging"]
    return [float(value) for value in logging["mean_fg_dice"]]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
