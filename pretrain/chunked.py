"""Embedding crops chunk by chunk: memory depends on the chunk and not on the batch (GradCache, arXiv 2101.06983).

The loss couples all crops of a batch, the encoder does not: its norms are those of one crop. So the crops can be
embedded chunk by chunk without keeping anything but the embeddings; the loss's gradient with respect to those is all
that the encoder's backward pass needs, and each chunk is then passed again, now with its activations kept, for as
long as its own backward pass takes. The gradient is that of one pass over all crops; the price is one more forward
pass. Everything happens within one backward pass of autograd, so that DistributedDataParallel, gradient scalers and
compiled encoders see an ordinary step, and parameters are synchronised once.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def embed_in_chunks(
    embed: Callable[[Tensor], Tensor], crops: Tensor, *, size: int | None, device: torch.device
) -> Tensor:
    """Embed crops, at most `size` at once.

    Args:
        embed: Embeds crops on `device`, each independently of the others.
        crops: (crops, 1, z, y, x), on any device; moved to `device` chunk by chunk.
        size: Crops that pass at once; all, with a single forward pass, when None or not less than there are.
        device: Where to compute.

    Returns:
        Embeddings (crops, E) on `device`.
    """
    if size is None or size >= len(crops):
        return embed(crops.to(device, non_blocking=True))
    here = torch.empty(0, device=device)  # tells `checkpoint` whose random state and autocast the second pass repeats

    def embed_chunk(chunk: Tensor, _here: Tensor) -> Tensor:
        return embed(chunk.to(device, non_blocking=True))

    return torch.cat([checkpoint(embed_chunk, chunk, here, use_reentrant=False) for chunk in crops.split(size)])


def refuse_batch_statistics(encoder: nn.Module) -> None:
    """Check that an encoder embeds each crop independently of the others.

    Raises:
        ValueError: If it has batch norms, whose statistics would be those of a chunk.
    """
    if any(isinstance(module, _BatchNorm) for module in encoder.modules()):
        raise ValueError(
            "chunk, accumulate: the network has batch norms, which would see a chunk of the crops instead of all; "
            "leave --chunk and --accumulate out, or use plans with instance norms"
        )
