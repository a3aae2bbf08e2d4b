"""The description of a checkpoint that nnssl writes and nnU-Net's own fine-tuning of nnssl checkpoints reads.

With it a file of this package also works with `nnUNetv2_plan_like_dynamic` and `nnUNetv2_train_pretrained` of the
nnU-Net versions that have them. Plain types only.
"""

from typing import Any

import torch

from nnunetv2_voco.encoder import Architecture, build_network

DEFAULT_PATCH = (160, 160, 160)
"""nnssl's own default for `recommended_downstream_patchsize`."""


def adaptation_plan(
    architecture: Architecture,
    *,
    num_input_channels: int,
    preprocessing: dict[str, Any],
    pretraining: dict[str, Any],
) -> dict[str, Any] | None:
    """Return the `nnssl_adaptation_plan` of a checkpoint, or None if the network does not say where its encoder is.

    Args:
        architecture: The network the weights belong to.
        num_input_channels: Channels the encoder takes.
        preprocessing: As in `Checkpoint`; `spacing_mm` and `normalization_scheme` are read.
        pretraining: As in `Checkpoint`; `crop_size` and `grid` are read.
    """
    with torch.device("meta"):
        network = build_network(architecture, num_input_channels=num_input_channels)
    keys = {key: getattr(network, key, None) for key in ("key_to_encoder", "key_to_stem", "keys_to_in_proj")}
    if None in keys.values():
        return None
    kwargs = architecture.to_plans()["arch_kwargs"]
    crop = [int(size) for size in pretraining.get("crop_size", DEFAULT_PATCH)]
    configuration = {
        "spacing": preprocessing.get("spacing_mm"),
        "patch_size": crop,
        "normalization_schemes": [preprocessing.get("normalization_scheme", "CTNormalization")] * num_input_channels,
    }
    return {
        "architecture_plans": {
            "arch_class_name": architecture.network_class_name.rsplit(".", 1)[-1],
            "arch_kwargs": kwargs,
            "arch_kwargs_requiring_import": list(architecture.requires_import),
        },
        # nnU-Net's dynamic route reads kernels and stages from here, and otherwise takes every kernel for 3×3×3
        "architecture_kwargs": kwargs,
        "pretrain_plan": {
            "plans_name": "nnunetv2_voco",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "configurations": {"voco": configuration},
        },
        "pretrain_num_input_channels": num_input_channels,
        "recommended_downstream_patchsize": _region(crop, pretraining.get("grid")),
        "key_to_encoder": keys["key_to_encoder"],
        "key_to_stem": keys["key_to_stem"],
        "keys_to_in_proj": list(keys["keys_to_in_proj"] or ()),
        "key_to_lpe": None,
    }


def citation_list(citations: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the citations in the form that nnssl's readers print."""
    return [{"type": "Pre-training", "name": "VoCo", "apa_citations": list(citations)}]


def _region(crop: list[int], grid: Any) -> list[int]:
    """Return the size of the region that a grid of crops covers, in voxels."""
    if grid is None or len(grid) != len(crop):
        return list(DEFAULT_PATCH)
    return [size * int(count) for size, count in zip(crop, grid, strict=True)]
