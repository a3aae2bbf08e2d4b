"""Pre-processed labelled datasets of nnU-Net whose every voxel tells by its brightness where it comes from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from tests.nnunetv2_voco.planned_dataset import make_dataset, plans, write_plans

FIRST, SECOND = "Dataset101_Trunk", "Dataset102_Head"
LABELS = {
    FIRST: {"background": 0, "Left_Kidney": 1, "liver": 2, "spleen": 3},
    SECOND: {"background": 0, "brain": 1, "LIVER": 2, "left kidney": 4, "ignore": 5},
}
SHAPE = (14, 20, 18)
STATISTICS = {"mean": 40.0, "std": 200.0, "percentile_00_5": -900.0, "percentile_99_5": 300.0}


def make_labelled_datasets(folder: Path, monkeypatch: pytest.MonkeyPatch, *, cases: int = 5) -> Path:
    """Point nnU-Net at a folder with two datasets; return it."""
    preprocessed = make_dataset(folder, monkeypatch).parent
    for name, labels in LABELS.items():
        write_dataset(preprocessed / name, labels)
        for index in range(cases):
            write_case(preprocessed / name, index, blocks_of_labels(index, [-1, *labels.values()]))
    return preprocessed


def write_dataset(folder: Path, labels: dict[str, Any], **changes: Any) -> None:
    """Write a dataset without cases."""
    folder.mkdir(exist_ok=True)
    description = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 5, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(description | changes))
    statistics = {"foreground_intensity_properties_per_channel": {"0": STATISTICS}}
    write_plans(folder, plans() | {"dataset_name": folder.name} | statistics)


def blocks_of_labels(seed: int, values: list[int]) -> np.ndarray:
    """Random labels in blocks of four voxels."""
    blocks = np.random.default_rng(seed).choice(values, [-(-n // 4) for n in SHAPE])
    return np.kron(blocks, np.ones((4, 4, 4), int))[tuple(slice(n) for n in SHAPE)]


def write_case(folder: Path, index: int, segmentation: np.ndarray) -> None:
    """Write a case as nnU-Net's pre-processing leaves it; voxel number n of case i has brightness n + 1 + 10000 i."""
    labels = json.loads((folder / "dataset.json").read_text())["labels"]
    seg = segmentation[None].astype(np.int8)
    data = (np.arange(seg.size).reshape(seg.shape) + 1 + 10000 * index).astype(np.float32)
    foreground = [value for name, value in labels.items() if name not in ("background", "ignore")]
    locations: dict[Any, np.ndarray] = {value: np.argwhere(seg == value) for value in foreground}
    if "ignore" in labels:
        annotated = (-1, 0, *foreground)
        locations[annotated] = np.argwhere(np.isin(seg, annotated))
    cases = folder / "nnUNetPlans_3d_fullres"
    cases.mkdir(exist_ok=True)
    nnUNetDatasetBlosc2.save_case(
        data, seg, {"class_locations": locations}, str(cases / f"case_{index}"),
        chunks=seg.shape, blocks=seg.shape, chunks_seg=seg.shape, blocks_seg=seg.shape,
    )  # fmt: skip


def stored_labels(folder: str, case: str) -> np.ndarray:
    """Labels of all voxels of a case in their order."""
    _, seg, _, _ = nnUNetDatasetBlosc2(folder, [case]).load_case(case)
    return np.asarray(seg[:]).ravel()
