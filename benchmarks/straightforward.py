"""The VoCo loss and step as one writes them down first: loops over volumes, crops and pairs, passes apart.

The peer of `loss.py` and `step.py`. It gives the same numbers as the package, which both scripts check.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_voco.pretrain.loss import EPSILON
from nnunetv2_voco.pretrain.model import VoCoModel, dropout_mask


def looped_loss(
    crops_student: Tensor, crops_teacher: Tensor, bases_student: Tensor, bases_teacher: Tensor, overlaps: Tensor
) -> Tensor:
    """Total loss of volumes, arguments as of `voco_loss`."""
    n = len(overlaps)
    total = crops_student.new_zeros(())
    for i in range(n):
        total = total + entropy(overlaps[i], similarities(crops_student[i], bases_teacher[i].detach()))
        if n > 1:
            j = (i + 1) % n
            target = similarities(crops_teacher[i], bases_teacher[j]).detach()
            total = total + entropy(target, similarities(crops_student[i], bases_student[j]))
        squares = [
            F.cosine_similarity(bases_student[i, a], bases_student[i, b].detach(), dim=0).relu() ** 2
            for a in range(bases_student.shape[1])
            for b in range(a + 1, bases_student.shape[1])
        ]
        total = total + sum(squares) / len(squares)
    return total / n


def similarities(crops: Tensor, bases: Tensor) -> Tensor:
    """`relu(cos)` of every pair, one by one."""
    rows = [torch.stack([F.cosine_similarity(crop, base, dim=0).relu() for base in bases]) for crop in crops]
    return torch.stack(rows).clamp(max=1)


def entropy(overlaps: Tensor, similarity: Tensor) -> Tensor:
    absent = overlaps == 0
    positive = (overlaps * torch.log(1 - (overlaps - similarity).abs() + EPSILON)).sum() / (overlaps.sum() + EPSILON)
    negative = torch.log(1 - similarity[absent] + EPSILON).sum() / (absent.sum() + EPSILON)
    return -positive - negative


class StraightforwardModel(VoCoModel):
    """The package's networks; every volume's crops and its bases pass the encoder by themselves."""

    def embed_volumes(self, crops_NK: Tensor) -> Tensor:
        """Embeddings (N, K, E)."""
        t = self.random_crops
        return torch.stack([torch.cat([self.embed_crops(v[:t]), self.embed_crops(v[t:])]) for v in crops_NK])

    def embed_crops(self, crops: Tensor) -> Tensor:
        """Embeddings (K, E) of some of a volume's crops."""
        pooled = [F.adaptive_avg_pool3d(stage, 1).flatten(1) for stage in self.encoder(crops)]
        return torch.cat(pooled, dim=1).float()

    def forward(  # type: ignore[override]
        self, crops_NK: Tensor, overlaps_NTB: Tensor, *, dropout: tuple[str, float], dropout_seed: tuple[int, int]
    ) -> Tensor:
        """Total loss."""
        embeddings = self.embed_volumes(crops_NK)
        n, k, e = embeddings.shape
        mask = dropout_mask((n * k, e), kind=dropout[0], p=dropout[1], seed=dropout_seed, device=embeddings.device)
        student = self.apply_projector(self.student, embeddings * mask.reshape(n, k, e))
        with torch.no_grad():
            teacher = self.apply_projector(self.teacher, embeddings)
        t = self.random_crops
        with torch.autocast(device_type=crops_NK.device.type, enabled=False):
            return looped_loss(student[:, :t], teacher[:, :t], student[:, t:], teacher[:, t:], overlaps_NTB)

    def apply_projector(self, projector: nn.Module, embeddings_NKE: Tensor) -> Tensor:
        """Projections (N, K, width) in float32."""
        with torch.autocast(device_type=embeddings_NKE.device.type, enabled=False):
            return projector(embeddings_NKE.flatten(0, 1)).unflatten(0, embeddings_NKE.shape[:2])
