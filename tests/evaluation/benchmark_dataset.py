"""A planned, pre-processed and labelled data set, small enough that a run of a benchmark takes seconds."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunetv2_voco.registration import discovery_folder
from tests.nnunetv2_voco.planned_dataset import NAME, make_dataset, plans, write_plans

SHAPE = (20, 24, 22)
_KEYWORDS = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
RESAMPLING = {
    f"resampling_fn_{what}{suffix}": value
    for what in ("data", "seg", "probabilities")
    for suffix, value in (("", "resample_data_or_seg_to_shape"), ("_kwargs", _KEYWORDS))
}
"""What nnU-Net's planner writes for the way back to the original grid."""


def make_labelled_dataset(folder: Path, monkeypatch: pytest.MonkeyPatch, *, cases: int = 10) -> Path:
    """Point nnU-Net at folders of its own with one data set in it; return its pre-processed folder."""
    preprocessed = make_dataset(folder, monkeypatch)
    monkeypatch.setenv("nnUNet_extTrainer", discovery_folder())
    description = json.loads((preprocessed / "dataset.json").read_text())
    (preprocessed / "dataset.json").write_text(json.dumps(description | {"numTraining": cases}))
    content = plans()
    content["configurations"]["3d_fullres"].update(RESAMPLING)
    write_plans(preprocessed, content)
    write_labelled_cases(preprocessed, cases)
    return preprocessed


def write_labelled_cases(preprocessed: Path, cases: int) -> None:
    """As nnU-Net's pre-processing leaves them: images, what it needs to go back to the original grid, true labels."""
    rng = np.random.default_rng(3)
    for part in ("nnUNetPlans_3d_fullres", "gt_segmentations"):
        (preprocessed / part).mkdir()
    for index in range(cases):
        z, y, x = (int(start) for start in rng.integers(2, 8, 3))
        seg = np.zeros(SHAPE, np.int8)
        seg[z : z + 10, y : y + 10, x : x + 10] = 1
        seg[z + 3 : z + 7, y + 3 : y + 7, x + 3 : x + 7] = 2
        data = (seg + rng.normal(0, 0.1, SHAPE)).astype(np.float32)
        file = preprocessed / "gt_segmentations" / f"case_{index}.nii.gz"
        sitk.WriteImage(sitk.GetImageFromArray(seg.astype(np.uint8)), str(file))
        properties = {
            "class_locations": {label: np.argwhere(seg[None] == label) for label in (1, 2)},
            "spacing": [1.0, 1.0, 1.0],
            "sitk_stuff": {
                "spacing": (1.0, 1.0, 1.0),
                "origin": (0.0, 0.0, 0.0),
                "direction": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
            },
            "shape_before_cropping": SHAPE,
            "shape_after_cropping_and_before_resampling": SHAPE,
            "bbox_used_for_cropping": [[0, length] for length in SHAPE],
        }
        nnUNetDatasetBlosc2.save_case(
            data[None],
            seg[None],
            properties,
            str(preprocessed / "nnUNetPlans_3d_fullres" / f"case_{index}"),
            chunks=(1, *SHAPE),
            blocks=(1, *SHAPE),
            chunks_seg=(1, *SHAPE),
            blocks_seg=(1, *SHAPE),
        )


def write_config(file: Path, **settings: object) -> Path:
    """A benchmark of the data set: everything as short as it can be."""
    content = {
        "out": "out", "device": "cpu", "threads": 1, "datasets": [NAME],
        "labels": [1, 2], "seeds": [0], "epochs": 3, "iterations_per_epoch": 2, "val_iterations_per_epoch": 1,
        "validation_cases": 2, "nsd_tolerance_mm": 1.0,
    }  # fmt: skip
    file.write_text(json.dumps(content | settings))  # JSON is YAML
    return file
