"""A planned and pre-processed data set of nnU-Net, made without nnU-Net's planner in a fraction of a second."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunetv2_voco.checkpoint import Checkpoint, save_checkpoint
from nnunetv2_voco.encoder import Architecture, build_network, plain_architecture

NAME = "Dataset999_Tiny"
FEATURES = (4, 8, 8)
PATCH = [16, 16, 16]


def make_dataset(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point nnU-Net at folders of its own; return the pre-processed one of the data set."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (folder / variable / NAME).mkdir(parents=True)
        monkeypatch.setenv(variable, str(folder / variable))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_compile", "f")
    monkeypatch.delenv("nnUNet_voco_checkpoint", raising=False)
    preprocessed = folder / "nnUNet_preprocessed" / NAME
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1, "tumour": 2},
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }
    (preprocessed / "dataset.json").write_text(json.dumps(description))
    (preprocessed / "dataset_fingerprint.json").write_text("{}")
    write_plans(preprocessed, plans())
    return preprocessed


def plans(architecture: Architecture | None = None) -> dict[str, Any]:
    """Plans with all four kinds of configuration."""
    network = architecture or plain_architecture(FEATURES)
    flat = copy.deepcopy(network.to_plans())
    flat["arch_kwargs"].update(
        conv_op="torch.nn.modules.conv.Conv2d",
        norm_op="torch.nn.modules.instancenorm.InstanceNorm2d",
        kernel_sizes=[kernel[1:] for kernel in network.arch_kwargs["kernel_sizes"]],
        strides=[stride[1:] for stride in network.arch_kwargs["strides"]],
    )
    common = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": PATCH,
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": False,
        **{f"resampling_fn_{what}": "resample_data_or_seg_to_shape" for what in ("data", "seg", "probabilities")},
        **{
            f"resampling_fn_{what}_kwargs": {
                "is_seg": what == "seg",
                "order": 1,
                "order_z": 0,
                "force_separate_z": None,
            }
            for what in ("data", "seg", "probabilities")
        },
        "architecture": network.to_plans(),
    }
    return {
        "dataset_name": NAME,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {},
        "configurations": {
            "2d": {**common, "patch_size": PATCH[1:], "spacing": [1.0, 1.0], "architecture": flat},
            "3d_lowres": {**common, "next_stage": "3d_cascade_fullres"},
            "3d_fullres": common,
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
    }


def write_plans(preprocessed: Path, content: dict[str, Any]) -> None:
    (preprocessed / f"{content['plans_name']}.json").write_text(json.dumps(content))


def write_cases(
    preprocessed: Path, count: int = 5, *, channels: int = 1, annotated: tuple[int, ...] | None = None
) -> None:
    """Pre-processed cases: noise around a bright cube, in which a brighter one, in each channel.

    `annotated` is nnU-Net's name for the voxels whose label is not the ignore label.
    """
    rng = np.random.default_rng(1)
    folder = preprocessed / "nnUNetPlans_3d_fullres"
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    for index in range(count):
        seg = np.zeros((1, 20, 20, 20), np.int8)
        seg[:, 4:14, 4:14, 4:14] = 1
        seg[:, 6:10, 6:10, 6:10] = 2
        data = (seg + rng.normal(0, 0.1, (channels, *seg.shape[1:]))).astype(np.float32)
        locations: dict[Any, np.ndarray] = {label: np.argwhere(seg == label) for label in (1, 2)}
        if annotated is not None:
            locations[annotated] = np.argwhere(np.isin(seg, annotated))
        nnUNetDatasetBlosc2.save_case(
            data,
            seg,
            {"class_locations": locations},
            str(folder / f"case_{index}"),
            chunks=data.shape,
            blocks=data.shape,
            chunks_seg=seg.shape,
            blocks_seg=seg.shape,
        )


def write_checkpoint(path: Path, architecture: Architecture | None = None) -> Path:
    """A checkpoint of random weights."""
    architecture = architecture or plain_architecture(FEATURES)
    network = build_network(architecture, num_input_channels=1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_checkpoint(
        path,
        Checkpoint(
            weights={name: tensor for name, tensor in network.state_dict().items() if name.startswith("encoder.")},
            architecture=architecture,
            preprocessing={
                "spacing_mm": [1.5, 1.0, 1.0],
                "orientation": "LPS",
                "normalization_scheme": "CTNormalization",
            },
            pretraining={"method": "VoCo", "grid": [1, 3, 3], "crop_size": [16, 16, 16], "metrics": {"accuracy": 0.75}},
            provenance={"packages": {"torch": "2"}},
        ),
    )
    return path
