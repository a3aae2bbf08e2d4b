"""nnU-Net's loss for sets that annotate different classes.

Where a set does not annotate a class, its background may be that class. So for patches of this set the class is merged
into the background before the loss: the probability of "nothing that this set annotates" is the sum of all that it
leaves out. The loss then says nothing about how that sum is parted. What remains is nnU-Net's own Dice and
cross-entropy, on the classes that the set annotates.

Shape suffixes: N = patches, C = classes of the network with background, A = those that a set annotates.
"""

from collections.abc import Sequence

import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor, nn

from nnunetv2_voco.pretrain.labelled.sets import IGNORE_LABEL


def merge_unannotated(logits_NC: Tensor, annotated: Sequence[bool]) -> Tensor:
    """Merge the classes that a set leaves out into the background.

    Args:
        logits_NC: (N, C, …).
        annotated: For each class whether the set annotates it; true for background.

    Returns:
        (N, A, …): logits of the classes annotated, background first; their softmax gives the background the sum of
        the probabilities merged.
    """
    kept = [c for c, is_annotated in enumerate(annotated) if is_annotated and c]
    merged = [0] + [c for c, is_annotated in enumerate(annotated) if not is_annotated]
    background = logits_NC[:, merged].logsumexp(dim=1, keepdim=True)
    return torch.cat([background, logits_NC[:, kept]], dim=1)


def merged_target(target: Tensor, annotated: Sequence[bool]) -> Tensor:
    """Number the classes of a target as `merge_unannotated` orders them; voxels to ignore get the number A."""
    kept = [c for c, is_annotated in enumerate(annotated) if is_annotated]
    number = torch.zeros(len(annotated) + 1, dtype=torch.long, device=target.device)
    number[kept] = torch.arange(len(kept), device=target.device)
    number[-1] = len(kept)  # IGNORE_LABEL is -1
    return number[target.long()]


class SegmentationLoss:
    """Dice and cross-entropy with deep supervision, as nnU-Net's trainer sets them up for labels without regions.

    Args:
        annotated: For each set, and each class of the network, whether the set annotates the class.
        scales: Number of outputs of the network.
        processes: With several, the coarsest output has a tiny weight in place of none, as in nnU-Net, so that every
            parameter takes part.
    """

    def __init__(self, annotated: Sequence[Sequence[bool]], *, scales: int, processes: int = 1) -> None:
        self.annotated = [list(row) for row in annotated]
        self.losses = [_nnunet_loss(sum(row), scales=scales, processes=processes) for row in self.annotated]

    def __call__(self, outputs: Sequence[Tensor], targets: Sequence[Tensor], set_index_N: Tensor) -> Tensor:
        """Compute the mean over patches.

        Args:
            outputs: Logits (N, C, z, y, x) for each scale, finest first.
            targets: (N, 1, z, y, x) for each scale; classes of the network or `IGNORE_LABEL`.
            set_index_N: Which set each patch is from.

        Returns:
            Scalar, float32.
        """
        total = outputs[0].new_zeros((), dtype=torch.float32)
        for index in set_index_N.unique().tolist():
            rows, annotated = set_index_N == index, self.annotated[index]
            logits = [merge_unannotated(output[rows].float(), annotated) for output in outputs]
            numbered = [merged_target(target[rows], annotated) for target in targets]
            total = total + self.losses[index](logits, numbered) * (rows.sum() / len(rows))
        return total


def _nnunet_loss(classes: int, *, scales: int, processes: int) -> nn.Module:
    loss = DC_and_CE_loss(
        {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}, {},
        ignore_label=classes, dice_class=MemoryEfficientSoftDiceLoss,
    )  # fmt: skip
    weights = [1 / 2**i for i in range(scales)]
    if scales > 1:
        weights[-1] = 0 if processes == 1 else 1e-6
    return DeepSupervisionWrapper(loss, [weight / sum(weights) for weight in weights])


assert IGNORE_LABEL == -1, "merged_target finds the last entry of its table by this index"
