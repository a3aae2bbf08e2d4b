"""One embedding for a whole volume: the mean over a sliding window's embeddings."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
import torch
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window
from torch import Tensor

from nnunetv2_voco.encoder_model import EncoderModel
from nnunetv2_voco.pretrain.cache import CachedVolume
from nnunetv2_voco.pretrain.intensity import Intensity

LEAST_BODY = 0.05
"""Windows with a smaller share of body are left out, unless all are."""


def embed_volume(
    model: EncoderModel,
    volume: CachedVolume,
    intensity: Intensity,
    *,
    size_vox: Sequence[int],
    step: float = 1.0,
    batch_size: int = 4,
    device: torch.device,
) -> tuple[Tensor, int]:
    """Embed a volume.

    Windows count by their share of body, so that the result tells of the body and not of the air around it.

    Args:
        model: The encoder, on `device`.
        volume: The pre-processed volume; beyond its rim it goes on with air, as in pre-training.
        intensity: Its normalisation.
        size_vox: Edge lengths of a window.
        step: Distance of windows as a share of their size, in (0, 1], as nnU-Net's `-step_size`.
        batch_size: Windows that are passed through the encoder at once.
        device: Where.

    Returns:
        float32 (E,) on the CPU, and the number of windows.
    """
    corners = np.array(list(product(*window_starts(volume.record.shape, size_vox, step))))
    share = volume.body.fraction(corners, np.asarray(size_vox))
    kept = share >= LEAST_BODY if (share >= LEAST_BODY).any() else np.ones(len(share), dtype=bool)
    corners, weights = corners[kept], torch.from_numpy(np.maximum(share[kept], 1e-6).astype(np.float32))

    def read(corner: np.ndarray) -> Tensor:
        return torch.from_numpy(intensity(volume.read(corner.tolist(), size_vox)))[None]

    embeddings = torch.cat(list(_embed(model, read, corners, batch_size, device)))
    return (weights[:, None] * embeddings).sum(0) / weights.sum(), len(corners)


def window_starts(shape: Sequence[int], size_vox: Sequence[int], step: float) -> list[list[int]]:
    """Return the lower corners along each axis, evenly spread; the window is centred where it covers the volume."""
    grown = tuple(max(n, size) for n, size in zip(shape, size_vox, strict=True))
    steps = compute_steps_for_sliding_window(grown, tuple(size_vox), step)
    return [starts if n >= size else [(n - size) // 2] for starts, n, size in zip(steps, shape, size_vox, strict=True)]


@torch.inference_mode()
def _embed(
    model: EncoderModel,
    read: Callable[[np.ndarray], Tensor],
    corners: np.ndarray,
    batch_size: int,
    device: torch.device,
) -> Iterator[Tensor]:
    for first in range(0, len(corners), batch_size):
        windows = torch.stack([read(corner) for corner in corners[first : first + batch_size]])
        yield model.embed(windows.to(device)).cpu()
