import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from nnunetv2_voco.pretrain.progress_figure import draw_progress

TRAINING = {"total": 1.5, "intra": 0.6, "inter": 0.1, "reg": 0.8, "lr": 1e-4, "inter_weight": 0.0}
VALIDATION = {
    "intra": 0.6,
    "chance_zero": 0.711,
    "chance_constant": 0.583,
    "accuracy": 0.3,
    "accuracy_augmented": 0.3,
    "accuracy_across": None,
    "untrained_accuracy": 0.25,
    "blind": 0.11,
    "positives": 0.5,
    "negatives": 0.3,
    "spread": 0.7,
}


def write_log(folder: Path, *records: dict) -> None:
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def is_picture(path: Path) -> bool:
    """Readable and not blank."""
    pixels = matplotlib.image.imread(path)
    return min(pixels.shape[:2]) > 200 and float(np.std(pixels[..., :3])) > 0.02


@pytest.mark.parametrize("steps", [0, 1, 30])
def test_progress_is_drawn_however_few_records_there_are(tmp_path: Path, steps):
    training = [{"step": s + 1, "kind": "training", **TRAINING} for s in range(steps)]
    validation = [{"step": s, "kind": "validation", **VALIDATION} for s in range(0, steps, 10)]
    write_log(tmp_path, *training, *validation)
    draw_progress(tmp_path)
    assert is_picture(tmp_path / "progress.png")


def test_values_that_were_not_finite_leave_gaps(tmp_path: Path):
    records = [{"step": s, "kind": "training", **TRAINING} for s in range(1, 4)]
    records[1] = {**records[1], "total": None, "intra": None}
    write_log(tmp_path, *records)
    draw_progress(tmp_path)
    assert is_picture(tmp_path / "progress.png")
