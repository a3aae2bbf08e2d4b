"""Folds of a dataset as nnU-Net has split it or would; one reading for labels in pre-training and the benchmark."""

import json
from collections.abc import Sequence
from pathlib import Path


def read_splits(folder: Path, cases: Sequence[str]) -> list[dict[str, list[str]]]:
    """Return a dataset's folds; `splits_final.json` is followed if it is there, and never written.

    Args:
        folder: Pre-processed folder of the dataset.
        cases: All its cases, sorted; split as nnUNetTrainer.do_split does where there is no file.

    Returns:
        For each fold the cases under "train" and "val".
    """
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    file = folder / "splits_final.json"
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    return generate_crossval_split(list(cases), seed=12345, n_splits=5)
