"""Networks as nnU-Net's plans describe them, and the encoder inside them."""

import copy
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

PLAIN_FEATURES = (32, 64, 128, 256, 320, 320)
"""Channels per stage of nnU-Net's plain 3D network at its default patch sizes."""

RESIDUAL_BLOCKS = (1, 3, 4, 6, 6, 6)
"""Blocks per stage of nnU-Net's residual encoder presets with six stages."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network in the words of the `architecture` block of nnU-Net's plans.

    Attributes:
        network_class_name: Import path of the class, e.g.
            "dynamic_network_architectures.architectures.unet.PlainConvUNet".
        arch_kwargs: Its arguments; classes stand as import paths.
        requires_import: The names of those arguments (`_kw_requires_import` in plans).
    """

    network_class_name: str
    arch_kwargs: dict[str, Any]
    requires_import: tuple[str, ...] = ("conv_op", "norm_op", "dropout_op", "nonlin")

    @classmethod
    def from_plans(cls, block: dict[str, Any]) -> "Architecture":
        """Read the `architecture` block of a configuration in nnU-Net's plans."""
        return cls(
            network_class_name=block["network_class_name"],
            arch_kwargs=_plain_types(block["arch_kwargs"]),
            requires_import=tuple(block["_kw_requires_import"]),
        )

    def to_plans(self) -> dict[str, Any]:
        """Return the `architecture` block of nnU-Net's plans, in types that JSON knows."""
        return {
            "network_class_name": self.network_class_name,
            "arch_kwargs": copy.deepcopy(self.arch_kwargs),
            "_kw_requires_import": list(self.requires_import),
        }

    @property
    def n_stages(self) -> int:
        """Number of resolution stages of the encoder."""
        return int(self.arch_kwargs["n_stages"])

    @property
    def features(self) -> tuple[int, ...]:
        """Channels of each encoder stage."""
        return _per_stage(self.arch_kwargs["features_per_stage"], self.n_stages)

    @property
    def strides(self) -> np.ndarray:
        """Stride of each stage along (z, y, x), shape (stages, 3)."""
        return np.array([_per_stage(s, 3) for s in _per_stage(self.arch_kwargs["strides"], self.n_stages)])

    @property
    def total_stride(self) -> np.ndarray:
        """Factor between the input's and the last stage's resolution along (z, y, x)."""
        return self.strides.prod(axis=0)

    @property
    def is_residual(self) -> bool:
        """Whether the encoder is built of residual blocks."""
        return "n_blocks_per_stage" in self.arch_kwargs

    def with_features(self, features: tuple[int, ...]) -> "Architecture":
        """Return the same network with other channel counts.

        Raises:
            ValueError: If there is not one count per stage.
        """
        if len(features) != self.n_stages:
            raise ValueError(
                f"features {features}: {len(features)} counts were given, the network has {self.n_stages} stages"
            )
        return Architecture(
            network_class_name=self.network_class_name,
            arch_kwargs={**copy.deepcopy(self.arch_kwargs), "features_per_stage": list(features)},
            requires_import=self.requires_import,
        )


def plain_architecture(features: tuple[int, ...] = PLAIN_FEATURES) -> Architecture:
    """Describe nnU-Net's plain 3D U-Net with isotropic kernels, one stage per entry of `features`.

    With the default features this is what nnU-Net's default planner configures for isotropic CT: 31 M parameters.
    """
    n_stages = len(features)
    return Architecture(
        network_class_name="dynamic_network_architectures.architectures.unet.PlainConvUNet",
        arch_kwargs={
            "n_stages": n_stages,
            "features_per_stage": list(features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * n_stages,
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (n_stages - 1),
            "n_conv_per_stage": [2] * n_stages,
            "n_conv_per_stage_decoder": [2] * (n_stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
    )


def residual_architecture(
    features: tuple[int, ...] = PLAIN_FEATURES, n_blocks: tuple[int, ...] = RESIDUAL_BLOCKS
) -> Architecture:
    """Describe nnU-Net's residual encoder 3D U-Net with isotropic kernels, one stage per entry of `features`.

    With the defaults this is the ResEnc-L network of nnU-Net's preset for isotropic images, also of nnssl.

    Raises:
        ValueError: If there is not one number of blocks per stage.
    """
    if len(features) != len(n_blocks):
        raise ValueError(
            f"{len(features)} features and {len(n_blocks)} numbers of blocks; one of each per stage is needed"
        )
    plain = plain_architecture(features).arch_kwargs
    del plain["n_conv_per_stage"]
    return Architecture(
        network_class_name="dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
        arch_kwargs={
            **plain,
            "n_blocks_per_stage": list(n_blocks),
            "n_conv_per_stage_decoder": [1] * (len(features) - 1),
        },
    )


def build_network(
    architecture: Architecture,
    *,
    num_input_channels: int,
    num_output_channels: int = 2,
    deep_supervision: bool = False,
) -> nn.Module:
    """Build the whole segmentation network, with nnU-Net's own factory and initialisation."""
    return get_network_from_plans(
        architecture.network_class_name,
        copy.deepcopy(architecture.arch_kwargs),
        list(architecture.requires_import),
        num_input_channels,
        num_output_channels,
        allow_init=True,
        deep_supervision=deep_supervision,
    )


def build_encoder(architecture: Architecture, *, num_input_channels: int = 1) -> nn.Module:
    """Build the encoder alone; its forward pass returns the feature maps of every stage, finest first.

    The names of its parameters, prefixed with "encoder.", are those of the whole network.
    """
    encoder = build_network(architecture, num_input_channels=num_input_channels).get_submodule("encoder")
    encoder.return_skips = True
    return encoder


def embedding_size(architecture: Architecture) -> int:
    """Length of the pooled embedding: the channels of all stages, concatenated."""
    return sum(architecture.features)


def check_input_size(architecture: Architecture, size_vox: tuple[int, ...]) -> None:
    """Check that an input of (z, y, x) voxels passes through the encoder.

    Raises:
        ValueError: If the size is no multiple of the total stride, or leaves the last stage a single voxel, of which
            an instance norm cannot take statistics.
    """
    stride = tuple(architecture.total_stride.tolist())
    if any(size % s for size, s in zip(size_vox, stride, strict=True)):
        raise ValueError(f"crop size {tuple(size_vox)} must be a multiple of the network's stride {stride}")
    if prod(size // s for size, s in zip(size_vox, stride, strict=True)) < 2:
        raise ValueError(
            f"crop size {tuple(size_vox)} leaves a single voxel after the network's stride {stride}; "
            "take larger crops or a network with fewer stages"
        )


def _per_stage(value: Any, n: int) -> tuple:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * n


def _plain_types(value: Any) -> Any:
    """Copy nested plans with numpy scalars and tuples turned into the types of JSON."""
    if isinstance(value, dict):
        return {key: _plain_types(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_types(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
