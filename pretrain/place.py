"""Where in the body is this? A dense companion of the VoCo loss, off under the published settings.

VoCo's labels can be predicted from voxels that crop and base share. The place loss cannot: small heads on the coarse
feature maps predict the coordinates of every one of their elements, and only differences between places of one volume
count, so that it needs neither a common field of view nor a registration. As all volumes share the heads, the same
anatomy must get the same coordinates everywhere. The heads are dropped after pre-training.

Shape suffixes: N = volumes, K = crops of a volume, P = predictions of a crop, M = elements of a map, 3 = (z, y, x),
2 = lower and upper corner.
"""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_voco.encoder import Architecture

LEAST_STRIDE = 4
"""Stages of this stride along one axis at least have heads; finer ones see too little to tell places apart."""

HIDDEN = 64
"""Channels between the two layers of a head."""

BETA = 0.1
"""Errors below this, in edges of a region, count as squares, larger ones by their size."""


class PlaceHeads(nn.Module):
    """One head for each coarse stage: two pointwise convolutions that predict a place for every element of the map.

    The second has no bias: a shift of a whole volume is no error.

    Args:
        architecture: The network whose encoder is trained.
        size_vox: Edge lengths of a crop, a multiple of the network's stride.
    """

    def __init__(self, architecture: Architecture, size_vox: tuple[int, int, int]) -> None:
        super().__init__()
        strides = architecture.strides.cumprod(axis=0)
        coarse = [stage for stage in range(architecture.n_stages) if strides[stage].max() >= LEAST_STRIDE]
        self.stages = coarse or [architecture.n_stages - 1]
        self.map_sizes = [
            tuple(int(n // s) for n, s in zip(size_vox, strides[stage], strict=True)) for stage in self.stages
        ]
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(architecture.features[stage], HIDDEN, 1), nn.LeakyReLU(), nn.Conv3d(HIDDEN, 3, 1, bias=False)
            )
            for stage in self.stages
        )  # fmt: skip

    @property
    def size(self) -> int:
        """Numbers predicted for one crop."""
        return 3 * sum(prod(size) for size in self.map_sizes)

    def forward(self, feature_maps: list[Tensor]) -> Tensor:
        """Predict from the feature maps of all stages, giving (crops, P)."""
        return torch.cat(
            [head(feature_maps[stage]).flatten(1) for stage, head in zip(self.stages, self.heads, strict=True)], dim=1
        )

    def loss(self, predictions_NKP: Tensor, places_NK23: Tensor, valid_NK: Tensor) -> Tensor:
        """Compare predicted places with true ones, each relative to the mean of its volume; in float32 or wider.

        Args:
            predictions_NKP: What `forward` returned.
            places_NK23: Lower and upper corner of each crop, in edges of a region; any origin will do.
            valid_NK: Which crops hold anatomy, bool; the others take no part.
        """
        predictions_NKP = predictions_NKP.to(torch.promote_types(predictions_NKP.dtype, torch.float32))
        terms = []
        lengths = [3 * prod(size) for size in self.map_sizes]
        for size, predictions in zip(self.map_sizes, predictions_NKP.split(lengths, dim=-1), strict=True):
            predicted_NK3M = predictions.unflatten(-1, (3, -1))
            true_NK3M = element_places(places_NK23.to(predictions.dtype), size)
            terms.append(place_errors(predicted_NK3M - true_NK3M, valid_NK))
        per_crop_NK = torch.stack(terms).mean(dim=0)
        return (per_crop_NK * valid_NK).sum() / valid_NK.sum().clamp(min=1)


def place_errors(error_NK3M: Tensor, valid_NK: Tensor) -> Tensor:
    """Mean penalty of each crop, (N, K), for errors of predicted places; those of a volume's mean place are free.

    Args:
        error_NK3M: Predicted minus true places of all elements of a map, in edges of a region.
        valid_NK: Which crops decide on the mean.
    """
    centred = _centred(error_NK3M, valid_NK)
    penalty = F.smooth_l1_loss(centred, torch.zeros_like(centred), beta=BETA, reduction="none")
    return penalty.mean(dim=(2, 3)) / BETA


def element_places(places_NK23: Tensor, size: tuple[int, ...]) -> Tensor:
    """Places of the elements' centres of a map that covers a crop evenly: (N, K, 3, M), last axis of space fastest."""
    shares = [(torch.arange(n, device=places_NK23.device) + 0.5) / n for n in size]
    shares_3M = torch.stack([axis.flatten() for axis in torch.meshgrid(*shares, indexing="ij")])
    lower, upper = places_NK23.unbind(dim=2)
    return lower[..., None] + (upper - lower)[..., None] * shares_3M


def _centred(error_NK3M: Tensor, valid_NK: Tensor) -> Tensor:
    """Subtract the mean over the valid crops of each volume: a shift of a whole volume is no error."""
    weight_NK11 = valid_NK[:, :, None, None] / valid_NK.sum(dim=1).clamp(min=1)[:, None, None, None]
    mean_N131 = (error_NK3M.mean(dim=3, keepdim=True) * weight_NK11).sum(dim=1, keepdim=True)
    return error_NK3M - mean_N131
