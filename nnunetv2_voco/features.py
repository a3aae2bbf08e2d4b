"""What is read off an encoder's feature maps: one vector for a crop, or one for each of some places in it.

Shape suffixes: N = places, C = channels, E = channels of all stages, 3 = (z, y, x).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


def pooled_embedding(feature_maps: Sequence[Tensor]) -> Tensor:
    """Global average of every stage's feature map, concatenated: (crops, sum of channels), in float32 or wider."""
    dtype = torch.promote_types(feature_maps[0].dtype, torch.float32)
    # a sum, since its gradient is a view of one number for a channel, where that of a mean fills a whole map
    return torch.cat([stage.sum(dim=(2, 3, 4), dtype=dtype) / stage[0, 0].numel() for stage in feature_maps], dim=1)


def features_at(feature_maps: Sequence[Tensor], places_N3: np.ndarray, size_vox: Sequence[int]) -> Tensor:
    """Interpolate every stage's feature map linearly at some places of one crop, and concatenate.

    nnU-Net pads by (kernel − 1) // 2, so that element i of a stage is centred on voxel i · stride of the input. Beyond
    the outermost elements the maps go on with their rim's value.

    Args:
        feature_maps: One map (1, C, z, y, x) for each stage.
        places_N3: In voxels of the crop, (z, y, x); fractions are allowed.
        size_vox: Edge lengths of the crop, (z, y, x).

    Returns:
        float32 (N, E).
    """
    columns = []
    for stage in feature_maps:
        shape = torch.tensor(stage.shape[2:], dtype=torch.float64)
        stride = torch.tensor(tuple(size_vox), dtype=torch.float64) / shape
        index_N3 = torch.as_tensor(places_N3, dtype=torch.float64) / stride
        grid_N3 = ((2 * index_N3 + 1) / shape - 1).flip(-1)  # grid_sample wants (x, y, z) in [-1, 1]
        grid = grid_N3.to(stage.device, torch.float32)[None, :, None, None]
        sampled = nn.functional.grid_sample(stage.float(), grid, padding_mode="border", align_corners=False)
        columns.append(sampled[0, :, :, 0, 0].T)
    return torch.cat(columns, dim=1)
