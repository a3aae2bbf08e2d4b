"""The VoCo network: one encoder, a student projector and its moving average, the teacher.

Shape suffixes: N = volumes, T = random crops, B = base crops, K = T + B crops of a volume, E = embedding.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from nnunetv2_voco.encoder import Architecture, build_encoder, embedding_size
from nnunetv2_voco.features import pooled_embedding
from nnunetv2_voco.pretrain.distributed import gather
from nnunetv2_voco.pretrain.loss import VoCoLoss, voco_loss


def projector(embedding_size: int, width: int) -> nn.Sequential:
    """Linear–BN–ReLU, Linear–BN–ReLU, Linear; the norms have no parameters and always use the batch's statistics."""

    def norm() -> nn.BatchNorm1d:
        return nn.BatchNorm1d(width, affine=False, track_running_stats=False)

    return nn.Sequential(
        nn.Linear(embedding_size, width), norm(), nn.ReLU(),
        nn.Linear(width, width), norm(), nn.ReLU(),
        nn.Linear(width, width),
    )  # fmt: skip


@torch.no_grad()
def update_momentum(student: nn.Module, teacher: nn.Module, momentum: float) -> None:
    """Move the teacher's parameters towards the student's: `teacher = m * teacher + (1 - m) * student`."""
    for source, target in zip(student.parameters(), teacher.parameters(), strict=True):
        target.lerp_(source, 1 - momentum)


def dropout_mask(shape: tuple[int, int], *, kind: str, p: float, seed: tuple[int, int], device: torch.device) -> Tensor:
    """Factors 0 or 1/(1 − p) for a batch of embeddings (crops, E), a function of the seed alone.

    The same in every process and after a resume.

    Args:
        shape: (crops, E).
        kind: "element" draws each number, "crop" whole rows (what `nn.Dropout1d` does to a matrix, as in the authors'
            code).
        p: Probability of 0.
        seed: Run seed and step.
        device: Where the mask is needed; it is drawn on the CPU.
    """
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state >> 1))
    keep = torch.rand((shape[0], 1) if kind == "crop" else shape, generator=generator) >= p
    return (keep / (1 - p)).to(device)


class VoCoModel(nn.Module):
    """Encoder, projectors and loss in one module, so that one forward pass is one training step.

    Args:
        architecture: The network whose encoder is trained.
        random_crops: T; each volume's crops come first, its bases after.
        projection_size: Width of the projectors.
    """

    def __init__(self, architecture: Architecture, *, random_crops: int, projection_size: int) -> None:
        super().__init__()
        self.random_crops = random_crops
        self.encoder = build_encoder(architecture, num_input_channels=1)
        self.student = projector(embedding_size(architecture), projection_size)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def embed(self, crops_NK: Tensor) -> Tensor:
        """Embed crops (N, K, 1, z, y, x), giving (N, K, E) in float32, of the volumes of all processes."""
        n, k = crops_NK.shape[:2]
        return gather(pooled_embedding(self.encoder(crops_NK.flatten(0, 1))).unflatten(0, (n, k)))

    def project(self, projector: nn.Module, embeddings_NKE: Tensor) -> Tensor:
        """Pass (N, K, E) through a projector in float32; its norms see all crops of all volumes at once."""
        with torch.autocast(device_type=embeddings_NKE.device.type, enabled=False):
            return projector(embeddings_NKE.flatten(0, 1)).unflatten(0, embeddings_NKE.shape[:2])

    def forward(
        self,
        crops_NK: Tensor,
        overlaps_NTB: Tensor,
        bases_valid_NB: Tensor,
        *,
        dropout: tuple[str, float],
        dropout_seed: tuple[int, int],
        intra_weight: float,
        inter_weight: float,
        reg_weight: float,
    ) -> VoCoLoss:
        """Compute the loss over the volumes of all processes.

        Args:
            crops_NK: Random crops, then base crops, (N, K, 1, z, y, x) of this process.
            overlaps_NTB: Labels (N, T, B) of this process.
            bases_valid_NB: Which bases take part, bool (N, B) of this process.
            dropout: Kind and probability.
            dropout_seed: Run seed and step.
            intra_weight: See `voco_loss`.
            inter_weight: See `voco_loss`.
            reg_weight: See `voco_loss`.
        """
        embeddings_NKE = self.embed(crops_NK)
        n, k, e = embeddings_NKE.shape
        mask = dropout_mask((n * k, e), kind=dropout[0], p=dropout[1], seed=dropout_seed, device=embeddings_NKE.device)
        student_NKE = self.project(self.student, embeddings_NKE * mask.reshape(n, k, -1))
        with torch.no_grad():
            teacher_NKE = self.project(self.teacher, embeddings_NKE)
        t = self.random_crops
        return voco_loss(
            student_NKE[:, :t],
            teacher_NKE[:, :t],
            student_NKE[:, t:],
            teacher_NKE[:, t:],
            gather(overlaps_NTB),
            bases_valid=gather(bases_valid_NB),
            intra_weight=intra_weight,
            inter_weight=inter_weight,
            reg_weight=reg_weight,
        )
