"""What a training step costs on a GPU that is not here, worked out from the network's operations.

The step runs on torch's meta device, where tensors have shapes but no numbers. Every operation then takes the longer
of two times on the GPU: its arithmetic at `ARITHMETIC_SHARE` of the peak, or its traffic at `BANDWIDTH_SHARE` of the
memory's (a roofline; Williams, Waterman, Patterson 2009). Both shares are assumptions, not measurements.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from nnunetv2_voco.encoder import Architecture, build_encoder
from nnunetv2_voco.pretrain.model import pooled_embedding

ARITHMETIC_SHARE = 0.25
"""Of the peak, that 3D convolutions of few channels reach."""

BANDWIDTH_SHARE = 0.5
"""Of the memory's bandwidth, that norms and activations reach."""

BYTES_PER_PARAMETER = 4 * (1 + 1 + 3) + 2
"""Weight, gradient, three moments of AdamW with amsgrad in fp32, and the copy in 16 bits."""

OPTIMISER_PASSES = 10
"""Times that an update reads or writes a number per parameter."""

CONTEXT_BYTES = 1.5e9
"""What CUDA, cuDNN's workspaces and fragmentation take."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU after its maker's data sheet.

    Attributes:
        tflops: Dense 16-bit tensor operations with fp32 accumulation, 10¹² a second.
        bandwidth: Of the memory in 10⁹ bytes a second.
        memory: In 10⁹ bytes.
    """

    tflops: float
    bandwidth: float
    memory: float


GPUS = {
    "t4": Gpu(tflops=65, bandwidth=320, memory=16),
    "v100": Gpu(tflops=125, bandwidth=900, memory=32),
    "rtx3090": Gpu(tflops=71, bandwidth=936, memory=24),
    "rtx4090": Gpu(tflops=165, bandwidth=1008, memory=24),
    "a40": Gpu(tflops=150, bandwidth=696, memory=48),
    "a6000": Gpu(tflops=155, bandwidth=768, memory=48),
    "l40s": Gpu(tflops=362, bandwidth=864, memory=48),
    "a100": Gpu(tflops=312, bandwidth=2039, memory=80),
    "h100": Gpu(tflops=989, bandwidth=3350, memory=80),
    "h800": Gpu(tflops=989, bandwidth=3350, memory=80),
    "h200": Gpu(tflops=989, bandwidth=4800, memory=141),
}


@dataclass(frozen=True, kw_only=True)
class CropCost:
    """What one crop asks of a GPU, in 16 bits.

    Attributes:
        forward: FLOPs and bytes read and written of each operation of the forward pass.
        backward: The same of the backward pass.
        kept: Bytes that the forward pass keeps for the backward pass.
        parameters: Of the encoder.
    """

    forward: tuple[tuple[float, float], ...]
    backward: tuple[tuple[float, float], ...]
    kept: float
    parameters: int

    @property
    def flops(self) -> float:
        """FLOPs of both passes."""
        return sum(flops for flops, _ in (*self.forward, *self.backward))

    def seconds(self, gpu: Gpu, *, crops: int, chunked: bool) -> float:
        """Time of a step of so many crops on one GPU, with one more forward pass if they pass in chunks."""
        passes = (*self.forward, *self.backward, *(self.forward if chunked else ()))
        arithmetic, bandwidth = gpu.tflops * 1e12 * ARITHMETIC_SHARE, gpu.bandwidth * 1e9 * BANDWIDTH_SHARE
        update = self.parameters * 4 * OPTIMISER_PASSES / bandwidth
        return crops * sum(max(flops / arithmetic, traffic / bandwidth) for flops, traffic in passes) + update

    def memory(self, *, crops_at_once: int) -> float:
        """Bytes that a step takes at its peak."""
        largest = max(traffic for _, traffic in self.backward)
        return crops_at_once * (self.kept + largest) + self.parameters * BYTES_PER_PARAMETER + CONTEXT_BYTES


def parse_gpus(text: str) -> tuple[int, str]:
    """Read `h100` or `8xh100`: number and name.

    Raises:
        ValueError: If the name is not in `GPUS`.
    """
    number, _, name = text.lower().partition("x") if text[:1].isdigit() else ("1", "", text.lower())
    if name not in GPUS or not number.isdigit() or int(number) < 1:
        raise ValueError(f"gpu {text!r}: expected one of {', '.join(GPUS)}, or several such as 8xh100")
    return int(number), name


def cost_of_a_crop(architecture: Architecture, crop_size: tuple[int, int, int]) -> CropCost:
    """Count one crop's way through the encoder and back; computes nothing and takes no memory."""
    with torch.device("meta"):
        encoder = build_encoder(architecture, num_input_channels=1).to(torch.bfloat16)
        crop = torch.empty(1, 1, *crop_size, dtype=torch.bfloat16)
    kept: dict[int, int] = {id(parameter): 0 for parameter in encoder.parameters()}
    alive: list[Tensor] = []  # so that no number of a storage is used twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, torch.nn.Parameter):
            kept[storage._cdata] = storage.nbytes()
        alive.append(tensor)
        return tensor

    with _Operations() as forward, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        embedding = pooled_embedding(encoder(crop)).sum()
    with _Operations() as backward:
        embedding.backward()
    return CropCost(
        forward=tuple(forward.counted),
        backward=tuple(backward.counted),
        kept=sum(kept.values()),
        parameters=sum(parameter.numel() for parameter in encoder.parameters()),
    )


class _Operations(TorchDispatchMode):
    """Notes FLOPs and bytes of every operation but views."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: list[tuple[float, float]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not func.is_view:
            count = flop_registry.get(func._overloadpacket)
            flops = float(count(*args, **kwargs, out_val=result)) if count else 0.0
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.counted.append((flops, float(sum(t.numel() * t.element_size() for t in tensors))))
        return result
