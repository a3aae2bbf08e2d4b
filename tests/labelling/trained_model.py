"""Folders of nnU-Net models that were never trained: random weights."""

import json
from pathlib import Path
from typing import Any

import torch

from nnunetv2_voco.encoder import Architecture, build_network
from tests.nnunetv2_voco.planned_dataset import plans

CT = {"0": {"mean": 0.0, "std": 200.0, "percentile_00_5": -950.0, "percentile_99_5": 900.0}}


def write_model(folder: Path, *, folds: tuple[str, ...] = ("fold_0",), **changes: Any) -> Path:
    """Two classes and an ignore label; `changes` go into dataset.json."""
    folder.mkdir(parents=True)
    content = plans() | {"foreground_intensity_properties_per_channel": CT}
    content["configurations"]["3d_fullres"]["spacing"] = [8.0, 8.0, 8.0]
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1, "tumour": 2, "ignore": 3},
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }
    (folder / "plans.json").write_text(json.dumps(content))
    (folder / "dataset.json").write_text(json.dumps(description | changes))
    architecture = Architecture.from_plans(content["configurations"]["3d_fullres"]["architecture"])
    for seed, fold in enumerate(folds):
        torch.manual_seed(seed)
        network = build_network(architecture, num_input_channels=1, num_output_channels=3)
        last = network.decoder.seg_layers[-1]  # each class gets its voxels: no bias, and weights that sum to zero
        torch.nn.init.zeros_(last.bias)
        torch.nn.init.normal_(last.weight)
        last.weight.data -= last.weight.data.mean(1, keepdim=True)
        (folder / fold).mkdir()
        checkpoint = {
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": "3d_fullres", "plans": content},
            "network_weights": network.state_dict(),
            "inference_allowed_mirroring_axes": None,
        }
        torch.save(checkpoint, folder / fold / "checkpoint_final.pth")
    return folder
