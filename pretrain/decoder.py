"""A decoder for the encoder that VoCo trains, off under the published settings.

Fine-tuning needs a decoder, and labels are a slow way to teach a random one what to do with the encoder's features. So
random crops pass the whole U-Net with half of their blocks hidden; at every scale of deep supervision it predicts, for
every voxel, its intensity, which takes the fine features of the skip connections, and its place in the body (see
`place`), which takes the coarse ones. The layers that predict are dropped after pre-training.

Shape suffixes: N = volumes, T = random crops of a volume, M = elements of a map, 3 = (z, y, x), 2 = lower and upper
corner.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnunetv2_voco.encoder import Architecture, build_network
from nnunetv2_voco.pretrain.place import element_places, place_errors

HIDDEN_SHARE = 0.5
"""Share of blocks that are hidden."""

BLOCKS = 4
"""Blocks along each axis of a crop, as far as its length allows."""

NOISE = 0.1
"""Standard deviation of the noise that is added, in the units of the network's input."""

PREDICTIONS = 4
"""Intensity and (z, y, x)."""


class DecoderLoss(nn.Module):
    """The decoder of a segmentation network around an encoder, and its loss.

    Args:
        architecture: The network.
        encoder: Its encoder, which gives the feature maps of all stages.
    """

    decoder: Any

    def __init__(self, architecture: Architecture, encoder: nn.Module) -> None:
        super().__init__()
        network: Any = build_network(
            architecture, num_input_channels=1, num_output_channels=PREDICTIONS, deep_supervision=True
        )
        self.decoder = network.decoder
        self.decoder.encoder = encoder

    def weights(self) -> dict[str, Tensor]:
        """State dict of the decoder, named as in the whole network, without the layers that predict."""
        left_out = ("encoder.", "seg_layers.")
        return {f"decoder.{n}": t for n, t in self.decoder.state_dict().items() if not n.startswith(left_out)}

    def forward(self, hidden_NT: Tensor, crops_NT: Tensor, places_NT23: Tensor, *, chunk: int | None = None) -> Tensor:
        """Compute the mean over volumes.

        Args:
            hidden_NT: Random crops with blocks hidden, (N, T, 1, z, y, x); may lie on the CPU, as may the next.
            crops_NT: The same crops as they are.
            places_NT23: Their corners, see `PlaceHeads.loss`.
            chunk: Crops that pass the network at once; at least those of one volume, all when None.

        Returns:
            Scalar, float32.
        """
        device = places_NT23.device

        def loss(hidden: Tensor, crops: Tensor, places: Tensor) -> Tensor:
            return self._loss(hidden.to(device, non_blocking=True), crops.to(device, non_blocking=True), places)

        volumes = len(crops_NT) if chunk is None else max(1, chunk // crops_NT.shape[1])
        if volumes >= len(crops_NT):
            return loss(hidden_NT, crops_NT, places_NT23)
        parts = zip(*(tensor.split(volumes) for tensor in (hidden_NT, crops_NT, places_NT23)), strict=True)
        losses = [checkpoint(loss, *part, use_reentrant=False) * (len(part[0]) / len(crops_NT)) for part in parts]
        return torch.stack(losses).sum()

    def _loss(self, hidden_NT: Tensor, crops_NT: Tensor, places_NT23: Tensor) -> Tensor:
        outputs = self.decoder(self.decoder.encoder(hidden_NT.flatten(0, 1)))
        exact = torch.promote_types(crops_NT.dtype, torch.float32)  # under autocast, too
        crops, places_NT23 = crops_NT.flatten(0, 1).to(exact), places_NT23.to(exact)
        valid_NT = torch.ones(crops_NT.shape[:2], dtype=torch.bool, device=crops.device)
        weights = [0.5**scale for scale in range(len(outputs))]  # as nnU-Net's deep supervision
        total = crops.new_zeros(())
        for weight, output in zip(weights, outputs, strict=True):
            intensity, place = output.to(exact).split([1, 3], dim=1)
            restored = F.mse_loss(intensity, F.adaptive_avg_pool3d(crops, output.shape[2:]))
            predicted_NT3M = place.flatten(2).unflatten(0, crops_NT.shape[:2])
            true_NT3M = element_places(places_NT23, tuple(output.shape[2:]))
            placed = place_errors(predicted_NT3M - true_NT3M, valid_NT).mean()
            total = total + weight / sum(weights) * (restored + placed)
        return total


def hide_blocks(crops_T: Tensor, rng: np.random.Generator) -> Tensor:
    """Set about half of the blocks of each crop to zero, the mean of normalised images, and add noise everywhere.

    Args:
        crops_T: (T, 1, z, y, x).
        rng: Source of randomness.
    """
    kept = [_blocks_of_axis(n) for n in crops_T.shape[2:]]
    grid = tuple(int(of_axis[-1]) + 1 for of_axis in kept)
    shown = rng.random((len(crops_T), 1, *grid)) >= HIDDEN_SHARE
    mask = shown[:, :, kept[0]][:, :, :, kept[1]][:, :, :, :, kept[2]]
    noise = rng.standard_normal(crops_T.shape, dtype=np.float32) * np.float32(NOISE)
    return crops_T * torch.from_numpy(mask) + torch.from_numpy(noise)


def _blocks_of_axis(length: int) -> np.ndarray:
    """Number of the block of each voxel along an axis."""
    return np.arange(length) * min(BLOCKS, length) // length


def no_crops(size_vox: Sequence[int]) -> Tensor:
    """Stand in for hidden crops where no decoder is trained: (0, 1, z, y, x)."""
    return torch.zeros((0, 1, *size_vox))
