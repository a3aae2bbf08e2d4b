"""The authors' SwinUNETR models in nnU-Net: MONAI's network, fed as it was in pre-training.

MONAI is an optional dependency (`pip install "nnunetv2_voco[swin]"`) and imported only where a network is built.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nnunetv2_voco.swin_intensity import PretrainedIntensities

STRIDE = 32
"""Factor between the input's and the deepest feature map's resolution, along every axis."""


class MonaiMissing(ImportError):
    """MONAI is not installed, or is a version without the network."""


class SwinForNNUNet(nn.Module):
    """MONAI's SwinUNETR behind nnU-Net's input: intensities and axes become those of the authors' pre-training.

    nnU-Net hands over patches in the plans' order of axes, normalised by the plans. The authors' models saw
    (x, y, z) and [0, 1]. The output is in the plans' order again.

    Args:
        network: MONAI's network.
        intensities: Undoes the plans' normalisation.
        transpose_backward: The plans': the plan's axis for each of (z, y, x).
    """

    def __init__(
        self, network: nn.Module, intensities: PretrainedIntensities, transpose_backward: Sequence[int] = (0, 1, 2)
    ) -> None:
        super().__init__()
        self.network = network
        self.intensities = intensities
        z, y, x = transpose_backward
        self.to_xyz = (0, 1, 2 + x, 2 + y, 2 + z)
        self.from_xyz = tuple(self.to_xyz.index(axis) for axis in range(5))

    def forward(self, data: Tensor) -> Tensor:
        """Map (batch, channels, three axes of the plan) to logits (batch, classes, the same axes)."""
        return self.network(self.intensities(data).permute(self.to_xyz)).permute(self.from_xyz)


def build_swin(*, num_input_channels: int, num_output_channels: int, feature_size: int) -> nn.Module:
    """Build MONAI's SwinUNETR, version 2, as the authors trained it; activations are recomputed to save memory.

    Raises:
        MonaiMissing: If MONAI cannot be imported or is too old.
    """
    try:
        from monai.networks.nets.swin_unetr import SwinUNETR
    except ImportError as error:
        raise MonaiMissing(
            f"the SwinUNETR trainers need MONAI, which cannot be imported ({error}); install it with\n"
            '  pip install "nnunetv2_voco[swin]"\n'
            "in the environment in which you train and predict"
        ) from error
    arguments: dict[str, Any] = {
        "in_channels": num_input_channels,
        "out_channels": num_output_channels,
        "feature_size": feature_size,
        "use_v2": True,
        "use_checkpoint": True,
    }
    parameters = inspect.signature(SwinUNETR).parameters
    if "use_v2" not in parameters:
        raise MonaiMissing('this MONAI has no SwinUNETR version 2; update it: pip install -U "nnunetv2_voco[swin]"')
    if "img_size" in parameters:  # MONAI before 1.5 asks for it, to check that it is divisible by 32
        arguments["img_size"] = (STRIDE,) * 3
    return SwinUNETR(**arguments)


def swin_for_plans(
    plans: PlansManager,
    configuration: ConfigurationManager,
    *,
    num_input_channels: int,
    num_output_channels: int,
    feature_size: int,
) -> SwinForNNUNet:
    """Build the network for a configuration of nnU-Net's plans.

    Raises:
        MonaiMissing: As `build_swin`.
        ValueError: If the intensities cannot be brought to those of pre-training.
    """
    intensities = PretrainedIntensities.for_plans(
        configuration.normalization_schemes,
        plans.foreground_intensity_properties_per_channel,
        num_label_channels=num_input_channels - len(configuration.normalization_schemes),
    )
    network = build_swin(
        num_input_channels=num_input_channels, num_output_channels=num_output_channels, feature_size=feature_size
    )
    return SwinForNNUNet(network, intensities, plans.transpose_backward)


def swin_patch_size(patch_size: Sequence[int]) -> tuple[int, int, int]:
    """Round a planned patch to the nearest size that the network takes.

    Every axis becomes a multiple of 32; one axis gets at least 64, as an instance norm cannot take statistics of the
    single voxel that 32 × 32 × 32 leaves at the deepest level.

    Raises:
        ValueError: If the patch is not 3D.
    """
    if len(patch_size) != 3:
        raise ValueError(
            f"patch size {tuple(patch_size)}: the SwinUNETR models are 3D; take a 3D configuration (3d_fullres, "
            "3d_lowres)"
        )
    rounded = [max(1, int(size / STRIDE + 0.5)) * STRIDE for size in patch_size]
    if max(rounded) == STRIDE:
        rounded[max(range(3), key=lambda axis: patch_size[axis])] = 2 * STRIDE
    return rounded[0], rounded[1], rounded[2]


class OnMeta(TorchFunctionMode):
    """Within `torch.device("meta")`, leave `linspace` on the CPU: MONAI reads numbers from it while it builds."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Call `func`, `linspace` with its device named."""
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)
