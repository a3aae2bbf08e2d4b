"""A small stand-in for the authors' SwinUNETR files: their names, the shapes of a network of feature size 12."""

from pathlib import Path

import torch

FEATURE_SIZE = 12


def write_swin_file(path: Path, *, ssl: bool, feature_size: int = FEATURE_SIZE) -> dict[str, torch.Tensor]:
    """Random weights, `backbone.` encoder and projectors if `ssl`, else the whole network with 21 classes.

    Returns:
        The weights under MONAI's names.
    """
    from nnunetv2_voco.swin import build_swin

    network = build_swin(num_input_channels=1, num_output_channels=21, feature_size=feature_size)
    weights = network.state_dict()
    for tensor in weights.values():
        if tensor.is_floating_point():
            tensor.normal_(std=0.05)
    if not ssl:
        torch.save({"state_dict": weights, "epoch": 3}, path)
        return weights
    encoder = {name: tensor for name, tensor in weights.items() if not name.startswith(("decoder", "out."))}
    content = {f"backbone.{name}": tensor for name, tensor in encoder.items()}
    for projector in ("student", "teacher"):
        for layer in ("layer1.0", "layer2.0", "layer3.0"):
            content[f"{projector}.{layer}.weight"] = torch.zeros(4, 4)
            content[f"{projector}.{layer}.bias"] = torch.zeros(4)
    torch.save(content, path)
    return encoder
