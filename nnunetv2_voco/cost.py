"""What a network costs, before it is built or trained: parameters, FLOPs and activation memory of one crop."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_voco.encoder import Architecture, build_network, check_input_size, plain_architecture
from nnunetv2_voco.presets import preset_architecture
from nnunetv2_voco.scales import scaled

BYTES = 4
"""Of a number in fp32."""

TORSO_VOX = (240, 220, 260)
"""Median size, (z, y, x), for which nnU-Net plans its presets here: a torso cropped to the body, at 1.5 mm."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one forward pass of a single crop.

    Attributes:
        parameters: Trainable parameters.
        flops: Floating-point operations of convolutions and matrix products, a multiply-add counted as two.
        activation_bytes: Bytes that autograd keeps for the backward pass in fp32, parameters not counted.
    """

    parameters: int
    flops: int
    activation_bytes: int


def cost_of(network: nn.Module, size_vox: tuple[int, int, int], *, num_input_channels: int = 1) -> Cost:
    """Measure on torch's meta device: shapes and graph are the real ones, nothing is computed or allocated.

    Args:
        network: On the meta device.
        size_vox: Of the crop, (z, y, x).
        num_input_channels: Channels of the input.
    """
    kept: dict[int, torch.UntypedStorage] = {}  # holding a storage keeps its number from being given to another

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    data = torch.zeros(1, num_input_channels, *size_vox, device="meta")
    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(note, lambda tensor: tensor):
        network(data)
    for parameter in network.parameters():
        kept.pop(parameter.untyped_storage()._cdata, None)
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        flops=counter.get_total_flops(),
        activation_bytes=sum(storage.nbytes() for storage in kept.values()),
    )


def network_cost(architecture: Architecture, size_vox: tuple[int, int, int], *, encoder_only: bool) -> Cost:
    """Measure nnU-Net's network, or its encoder as pre-training uses it.

    Raises:
        ValueError: If the crop does not pass through the network.
    """
    check_input_size(architecture, size_vox)
    with torch.device("meta"):
        network = build_network(architecture, num_input_channels=1)
    if not encoder_only:
        return cost_of(network, size_vox)
    encoder = network.get_submodule("encoder")
    encoder.return_skips = True  # type: ignore[assignment]
    return cost_of(encoder, size_vox)


def named_architecture(name: str, scale: str | None = None) -> Architecture:
    """Return a network of `voco_pretrain --arch`; nnU-Net's presets as planned for CTs of a torso at 1.5 mm.

    Raises:
        ValueError: If a scale is asked of a residual preset.
    """
    if name == "plain":
        return scaled(plain_architecture(), scale or "B")
    architecture = preset_architecture(name, spacing_mm=(1.5,) * 3, median_shape=TORSO_VOX, number_of_volumes=100)
    return architecture if scale is None else scaled(architecture, scale)


def describe_cost(architecture: Architecture, size_vox: tuple[int, int, int]) -> Iterator[str]:
    """Yield a table for encoder and whole network, and what the figures are."""
    kind = architecture.network_class_name.rsplit(".", 1)[-1]
    blocks = architecture.arch_kwargs["n_blocks_per_stage" if architecture.is_residual else "n_conv_per_stage"]
    yield f"{kind}, {architecture.n_stages} stages"
    strides = ["×".join(map(str, stride)) for stride in architecture.strides.tolist()]
    yield f"  {'features':24}{', '.join(map(str, architecture.features))}"
    yield f"  {('blocks' if architecture.is_residual else 'convolutions') + ' a stage':24}{', '.join(map(str, blocks))}"
    yield f"  {'strides':24}{', '.join(strides)}"
    size = "×".join(map(str, size_vox))
    yield f"{f'for a crop of {size}':28}{'parameters':>11}{'GFLOPs forward':>16}{'activations':>15}"
    for title, encoder_only in (("encoder (pre-training)", True), ("whole U-Net (fine-tuning)", False)):
        cost = network_cost(architecture, size_vox, encoder_only=encoder_only)
        yield (
            f"  {title:26}{cost.parameters / 1e6:9.1f} M{cost.flops / 1e9:16.1f}"
            f"{cost.activation_bytes / 2**20:11.0f} MiB"
        )
    yield (
        "FLOPs: convolutions, a multiply-add counts two; backward takes about twice as many again. Activations: what\n"
        "autograd keeps of one crop in fp32, measured on torch's meta device; about half under autocast. Weights,\n"
        f"gradients and AdamW's moments (amsgrad) take {BYTES * 5} bytes a parameter on top."
    )
