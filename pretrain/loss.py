"""The VoCo loss: intra-volume, inter-volume and regularisation terms.

Wu, Zhuang, Chen, "Large-Scale 3D Medical Image Pre-training with Geometric Context Priors", IEEE TPAMI 2025; where
text and released code differ, the code is followed.

Shape suffixes: N = volumes, T = random crops of a volume, B = base crops of a volume, E = embedding.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6
"""Guards every logarithm and quotient, as in the authors' code."""


class VoCoLoss(NamedTuple):
    """The three terms and their weighted sum, each a scalar."""

    intra: Tensor
    inter: Tensor
    reg: Tensor
    total: Tensor


def voco_loss(
    crops_student: Tensor,
    crops_teacher: Tensor,
    bases_student: Tensor,
    bases_teacher: Tensor,
    overlaps: Tensor,
    *,
    bases_valid: Tensor | None = None,
    intra_weight: float = 1.0,
    inter_weight: float = 1.0,
    reg_weight: float = 1.0,
) -> VoCoLoss:
    """Compute the loss of a batch of volumes, in float32 or the wider type of its inputs.

    Args:
        crops_student: Random crops through the student projector, (N, T, E).
        crops_teacher: Random crops through the teacher projector, (N, T, E). No gradient flows into it.
        bases_student: Base crops through the student projector, (N, B, E).
        bases_teacher: Base crops through the teacher projector, (N, B, E). No gradient flows into it.
        overlaps: Share of each random crop inside each base crop, (N, T, B) in [0, 1].
        bases_valid: Which base crops hold anatomy, bool (N, B); the others take no part. All, when None.
        intra_weight: Weight of the intra-volume term.
        inter_weight: Weight of the inter-volume term, which is 0 for a single volume.
        reg_weight: Weight of the regularisation.

    Returns:
        The terms, averaged over volumes, and `intra_weight * intra + inter_weight * inter + reg_weight * reg`.
    """
    dtype = torch.promote_types(crops_student.dtype, torch.float32)
    with torch.autocast(device_type=crops_student.device.type, enabled=False):
        crops_student_NTE, bases_student_NBE = crops_student.to(dtype), bases_student.to(dtype)
        crops_teacher_NTE, bases_teacher_NBE = crops_teacher.detach().to(dtype), bases_teacher.detach().to(dtype)
        valid_NB = torch.ones_like(overlaps[:, 0], dtype=torch.bool) if bases_valid is None else bases_valid
        intra = intra_volume_loss(crops_student_NTE, bases_teacher_NBE, overlaps.to(dtype), valid_NB)
        inter = inter_volume_loss(crops_student_NTE, crops_teacher_NTE, bases_student_NBE, bases_teacher_NBE, valid_NB)
        reg = base_regularisation(bases_student_NBE, valid_NB)
        total = intra_weight * intra + inter_weight * inter + reg_weight * reg
    return VoCoLoss(intra, inter, reg, total)


def intra_volume_loss(
    crops_student_NTE: Tensor, bases_teacher_NBE: Tensor, overlaps_NTB: Tensor, valid_NB: Tensor
) -> Tensor:
    """Similarities of a volume's crops to its own bases must equal their overlaps."""
    return overlap_entropy(overlaps_NTB, similarity(crops_student_NTE, bases_teacher_NBE), valid_NB).mean()


def inter_volume_loss(
    crops_student_NTE: Tensor,
    crops_teacher_NTE: Tensor,
    bases_student_NBE: Tensor,
    bases_teacher_NBE: Tensor,
    valid_NB: Tensor,
) -> Tensor:
    """Similarities of a volume's crops to the next volume's bases must equal those that the teacher sees."""
    if len(crops_student_NTE) < 2:
        return crops_student_NTE.new_zeros(())
    following = [x.roll(-1, dims=0) for x in (bases_student_NBE, bases_teacher_NBE, valid_NB)]
    target_NTB = similarity(crops_teacher_NTE, following[1])
    return overlap_entropy(target_NTB, similarity(crops_student_NTE, following[0]), following[2]).mean()


def base_regularisation(bases_student_NBE: Tensor, valid_NB: Tensor) -> Tensor:
    """Bases of one volume must differ: mean over pairs i < j of `relu(cos(base_i, stopgrad(base_j)))²`."""
    similarity_NBB = similarity(bases_student_NBE, bases_student_NBE.detach())
    pairs_NBB = (valid_NB[:, :, None] & valid_NB[:, None, :]).triu(diagonal=1)
    squares_N = (similarity_NBB.square() * pairs_NBB).sum(dim=(1, 2))
    return (squares_N / pairs_NBB.sum(dim=(1, 2)).clamp(min=1)).mean()


def similarity(a_NTE: Tensor, b_NBE: Tensor) -> Tensor:
    """`relu(cos(a, b))` of every pair within a volume, (N, T, B) in [0, 1].

    The upper bound is enforced: rounding gives two equal crops, such as two of pure padding, a cosine above 1, and the
    logarithm of `overlap_entropy` then has no value.
    """
    return torch.einsum("nte,nbe->ntb", F.normalize(a_NTE, dim=-1), F.normalize(b_NBE, dim=-1)).clamp(0, 1)


def overlap_entropy(overlaps_NTB: Tensor, similarity_NTB: Tensor, valid_NB: Tensor) -> Tensor:
    """Cross-entropy between overlaps and similarities of each volume, (N,).

    `−Σ y·log(1 − |y − s| + ε) / (Σ y + ε)  −  Σ_{y=0} log(1 − s + ε) / (#{y=0} + ε)`, over the valid bases.
    The authors' code counts in integers, so its `#{y=0} + ε` is rounded to float32; so is ours.
    """
    valid_N1B = valid_NB[:, None, :]
    y, s = overlaps_NTB * valid_N1B, similarity_NTB
    absent = (overlaps_NTB == 0) & valid_N1B
    absent_count_N = absent.sum(dim=(1, 2)).to(torch.float32) + EPSILON
    positive_N = (y * torch.log(1 - (y - s).abs() + EPSILON)).sum(dim=(1, 2)) / (y.sum(dim=(1, 2)) + EPSILON)
    negative_N = (absent * torch.log(1 - s + EPSILON)).sum(dim=(1, 2)) / absent_count_N
    return -positive_N - negative_N


def best_constant_loss(overlaps_NTB: Tensor, valid_NB: Tensor) -> tuple[float, float]:
    """Intra-volume loss of a model that tells nothing apart: what a run has to beat.

    Args:
        overlaps_NTB: Labels, (N, T, B).
        valid_NB: Which base crops take part, bool (N, B).

    Returns:
        The loss when all similarities are 0, and the least loss that any one constant similarity reaches. For the
        (1, 3, 3) grid 0.711 and 0.583 in the mean.
    """
    constants = torch.linspace(0, 1, 201, dtype=torch.float64)
    overlaps = overlaps_NTB.double()
    losses = torch.stack([overlap_entropy(overlaps, c.expand_as(overlaps), valid_NB).mean() for c in constants[:-1]])
    return float(losses[0]), float(losses.min())
