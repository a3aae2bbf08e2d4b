"""Loading SwinUNETR weights, with an account of every parameter."""

import re
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn

from nnunetv2_voco.adapt import adapt_input_channels
from nnunetv2_voco.report import TensorRecord, TransferReport
from nnunetv2_voco.swin import OnMeta, SwinForNNUNet, swin_for_plans, swin_patch_size
from nnunetv2_voco.swin_files import DECODER, ENCODER, PATCH_EMBEDDING, PUBLISHED, feature_size, is_swin, swin_trainer
from nnunetv2_voco.target import read_target
from nnunetv2_voco.transfer import MINIMUM_SHARE, Pretrained, TransferError, fill, unwrap

IMAGE_CONVOLUTIONS = (PATCH_EMBEDDING, "encoder1.layer.conv1.conv.weight", "encoder1.layer.conv3.conv.weight")
"""The tensors that meet the image."""


def load_swin(network: nn.Module, checkpoint: Pretrained, *, minimum_share: float = MINIMUM_SHARE) -> TransferReport:
    """Fill `network` with the weights of `checkpoint`, in place; see `match_swin`.

    Raises:
        TransferError: If these are no SwinUNETR weights or those of another size, if too little fits, or if weights are
            not finite. Nothing is changed then.
    """
    new, report = match_swin(network, checkpoint)
    fill(unwrap(network), new, report, minimum_share=minimum_share)
    return report


def foresee_swin(folder: Path, plans: dict[str, Any], configuration: str, checkpoint: Pretrained) -> TransferReport:
    """Say what would be transferred into the SwinUNETR of the checkpoint's size, built for a configuration of `plans`.

    Args:
        folder: The data set's pre-processed folder.
        plans: The plans.
        configuration: Its name.
        checkpoint: The weights.

    Raises:
        ValueError: If there is no such configuration, it is not 3D, or intensities cannot be brought to those of
            pre-training.
        MonaiMissing: If MONAI is not installed.
    """
    target, manager = read_target(folder, plans, configuration), PlansManager(plans)
    swin_patch_size(target.patch_size)
    with torch.device("meta"), OnMeta():
        network = swin_for_plans(
            manager,
            manager.get_configuration(configuration),
            num_input_channels=target.num_input_channels,
            num_output_channels=target.num_output_channels,
            feature_size=feature_size(checkpoint.weights),
        )
    return match_swin(network, checkpoint)[1]


def match_swin(network: nn.Module, checkpoint: Pretrained) -> tuple[dict[str, Tensor], TransferReport]:
    """Find for each tensor of the network, its segmentation layer excepted, the one of the checkpoint.

    The encoder is always matched, the decoder where the file has one, as in the authors' fine-tuning. Only the number
    of input channels may differ.

    Args:
        network: A `SwinForNNUNet`, wrapped or not; it may lie on the meta device.
        checkpoint: What `nnunetv2_voco.foreign.open_checkpoint` returns.

    Returns:
        The new values by their names in the network, and what becomes of every tensor.

    Raises:
        TransferError: If these are no SwinUNETR weights or those of another size.
    """
    module = unwrap(network)
    if not isinstance(module, SwinForNNUNet) or not is_swin(checkpoint.weights):
        raise TransferError(
            "the checkpoint holds no weights of a SwinUNETR; this trainer takes the authors' "
            + ", ".join(file for files in PUBLISHED.values() for file in files)
            + "; for others take nnUNetTrainerVoCo"
        )
    source = checkpoint.weights
    targets = dict(module.network.named_parameters())
    want, have = feature_size(targets), feature_size(source)
    if want != have:
        raise TransferError(
            f"the checkpoint is a SwinUNETR of feature size {have}, the trainer's has {want}; take "
            f"-tr {swin_trainer(source)}"
        )
    new: dict[str, Tensor] = {}
    records: dict[bool, list[TensorRecord]] = {True: [], False: []}
    has_decoder = any(name.startswith(DECODER) for name in source)
    for name, target in targets.items():
        in_encoder = name.startswith(ENCODER)
        if not in_encoder and not (has_decoder and name.startswith(DECODER)):
            continue
        tensor, rules, reason = source.get(name), tuple[str, ...](), ""
        if tensor is None:
            reason = "not in the checkpoint"
        elif name in IMAGE_CONVOLUTIONS and tensor.shape[1] != target.shape[1]:
            rules = (f"input channels {tensor.shape[1]} → {target.shape[1]}",)
            labels = module.intensities.num_label_channels
            tensor = adapt_input_channels(tensor, target.shape[1], num_label_channels=labels)
        if tensor is not None and tensor.shape != target.shape:
            tensor, rules, reason = None, (), "of another shape"
        if tensor is not None:
            new[f"network.{name}"] = tensor
        size = target.numel()
        records[in_encoder].append(
            TensorRecord(
                name=name,
                stage=_part(name) if in_encoder else "decoder",
                size=size,
                loaded=size if tensor is not None else 0,
                rules=rules,
                reason=reason,
            )
        )
    used = {name.removeprefix("network.") for name in new}
    buffers = {name for name, _ in module.network.named_buffers()}
    report = TransferReport(
        encoder=tuple(records[True]),
        decoder=tuple(records[False]),
        unused=tuple(name for name in source if name not in used | buffers),
        notes=module.intensities.remarks,
    )
    return new, report


def _part(name: str) -> str:
    """Name the part of the encoder: "stem", "stage 1"… of the transformer, or the block on a skip connection."""
    stage = re.match(r"swinViT\.layers(\d)c?\.", name)
    if stage:
        return f"stage {stage[1]}"
    return "stem" if name.startswith("swinViT.") else name.split(".")[0]
