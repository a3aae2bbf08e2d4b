"""Small networks of nnU-Net's kinds, checkpoints of random weights for them, and what they compute."""

from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_voco.checkpoint import Checkpoint
from nnunetv2_voco.encoder import Architecture, build_network, plain_architecture, residual_architecture

FEATURES = (8, 16, 24, 24)
SIZE_VOX = (32, 32, 32)
ANISOTROPIC = [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3]]


def architecture(family: str, **changes: Any) -> Architecture:
    """A plain or residual network; `depth` stands for convolutions or blocks per stage, whichever it has."""
    plain = family == "plain"
    result = plain_architecture(FEATURES) if plain else residual_architecture(FEATURES, (1, 2, 2, 2))
    n_stages = changes.get("n_stages", len(FEATURES))
    depth = changes.pop("depth", [2] * n_stages if plain else [1, *[2] * (n_stages - 1)])
    kwargs = result.arch_kwargs
    kwargs.update(
        {
            "n_stages": n_stages,
            "features_per_stage": [*FEATURES, 24][:n_stages],
            "kernel_sizes": [[3, 3, 3]] * n_stages,
            "strides": [[1, 1, 1], *[[2, 2, 2]] * (n_stages - 1)],
            "n_conv_per_stage_decoder": [1] * (n_stages - 1),
            "n_conv_per_stage" if plain else "n_blocks_per_stage": depth,
        }
        | changes
    )
    return result


def checkpoint_of(architecture: Architecture, num_input_channels: int = 1) -> Checkpoint:
    """Random weights, also where nnU-Net starts with zeros and ones."""
    network = build_network(architecture, num_input_channels=num_input_channels)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    weights = {name: tensor for name, tensor in network.state_dict().items() if name.startswith("encoder.")}
    return Checkpoint(weights=weights, architecture=architecture, num_input_channels=num_input_channels)


def image(channels: int = 1) -> Tensor:
    return torch.randn(1, 1, *SIZE_VOX).expand(-1, channels, -1, -1, -1)


def features(network: nn.Module, image: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return network.encoder(image)


def source_features(checkpoint: Checkpoint, image: Tensor, *, circular: bool = False) -> list[Tensor]:
    network = build_network(checkpoint.architecture, num_input_channels=checkpoint.num_input_channels)
    state = network.state_dict() | checkpoint.weights
    network.load_state_dict(state | {f"decoder.{name}": tensor for name, tensor in checkpoint.weights.items()})
    return features(pad_circularly(network) if circular else network, image)


def pad_circularly(network: nn.Module) -> nn.Module:
    """Take away the borders, at which a kernel's taps along an axis see different things in a constant image."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.padding_mode = "circular"
    return network


def assert_features_equal(after: list[Tensor], before: list[Tensor]) -> None:
    for new, old in zip(after, before, strict=False):
        torch.testing.assert_close(new[:, : old.shape[1]], old, rtol=1e-3, atol=1e-4)
