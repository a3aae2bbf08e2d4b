"""The VoCo network: one encoder, a student projector and its moving average, the teacher.

Shape suffixes: N = volumes, T = random crops, B = base crops, K = T + B crops of a volume, E = embedding.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nnunetv2_voco.encoder import Architecture, build_encoder, embedding_size
from nnunetv2_voco.features import pooled_embedding
from nnunetv2_voco.pretrain.chunked import embed_in_chunks
from nnunetv2_voco.pretrain.decoder import DecoderLoss
from nnunetv2_voco.pretrain.distributed import gather
from nnunetv2_voco.pretrain.loss import voco_loss
from nnunetv2_voco.pretrain.place import PlaceHeads


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


def dropout_mask(shape: tuple[int, int], *, kind: str, p: float, seed: tuple[int, ...], device: torch.device) -> Tensor:
    """Factors 0 or 1/(1 − p) for a batch of embeddings (crops, E), a function of the seed alone.

    The same in every process and after a resume.

    Args:
        shape: (crops, E).
        kind: "element" draws each number, "crop" whole rows (what `nn.Dropout1d` does to a matrix, as in the authors'
            code).
        p: Probability of 0.
        seed: Run seed and step, and the process where each has a loss of its own.
        device: Where the mask is needed; it is drawn on the CPU.
    """
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state >> 1))
    keep = torch.rand((shape[0], 1) if kind == "crop" else shape, generator=generator) >= p
    return (keep / (1 - p)).to(device)


class StepLoss(NamedTuple):
    """The terms of a training step and their weighted sum, scalars; 0 for what the model does not learn."""

    intra: Tensor
    inter: Tensor
    reg: Tensor
    place: Tensor
    decoder: Tensor
    total: Tensor


class VoCoModel(nn.Module):
    """Encoder, projectors and loss in one module, so that one forward pass is one training step.

    Args:
        architecture: The network whose encoder is trained.
        random_crops: T; each volume's crops come first, its bases after.
        projection_size: Width of the projectors.
        crop_size: Edge lengths of a crop in voxels, if the model is to learn places, too; see `pretrain.place`.
        decoder: Whether a decoder learns as well; see `pretrain.decoder`.
    """

    encoder: nn.Module

    def __init__(
        self,
        architecture: Architecture,
        *,
        random_crops: int,
        projection_size: int,
        crop_size: tuple[int, int, int] | None = None,
        decoder: bool = False,
    ) -> None:
        super().__init__()
        self.random_crops = random_crops
        self.encoder = build_encoder(architecture, num_input_channels=1)
        self.embedding_size = embedding_size(architecture)
        self.student = projector(self.embedding_size, projection_size)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.place_heads = None if crop_size is None else PlaceHeads(architecture, crop_size)
        self.decoder_loss = DecoderLoss(architecture, self.encoder) if decoder else None

    def embed(self, crops_NK: Tensor, chunk: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Embed crops (N, K, 1, z, y, x), `chunk` of them at once.

        Returns:
            Embeddings (N, K, E) on the encoder's device, and what the place heads predict, (N, K, P), if there are any.
        """
        joined = embed_in_chunks(
            self._embed_and_place, crops_NK.flatten(0, 1), size=chunk, device=next(self.encoder.parameters()).device
        ).unflatten(0, crops_NK.shape[:2])
        if self.place_heads is None:
            return joined, None
        embeddings, predictions = joined.split([self.embedding_size, self.place_heads.size], dim=-1)
        return embeddings, predictions

    def _embed_and_place(self, crops: Tensor) -> Tensor:
        """Return one row for each crop, so that chunks and processes have one tensor to pass on: (crops, E + P)."""
        feature_maps = self.encoder(crops)
        embeddings = pooled_embedding(feature_maps)
        if self.place_heads is None:
            return embeddings
        return torch.cat([embeddings, self.place_heads(feature_maps).to(embeddings.dtype)], dim=1)

    def project(self, projector: nn.Module, embeddings_NKE: Tensor) -> Tensor:
        """Pass (N, K, E) through a projector in float32; its norms see all crops of all volumes at once."""
        with torch.autocast(device_type=embeddings_NKE.device.type, enabled=False):
            return projector(embeddings_NKE.flatten(0, 1)).unflatten(0, embeddings_NKE.shape[:2])

    def forward(
        self,
        crops_NK: Tensor,
        overlaps_NTB: Tensor,
        bases_valid_NB: Tensor,
        places_NK23: Tensor,
        hidden_NT: Tensor,
        *,
        dropout: tuple[str, float],
        dropout_seed: tuple[int, ...],
        intra_weight: float,
        inter_weight: float,
        reg_weight: float,
        place_weight: float = 0.0,
        decoder_weight: float = 0.0,
        chunk: int | None = None,
        gathered: bool = True,
    ) -> StepLoss:
        """Compute the loss over the volumes of all processes.

        Args:
            crops_NK: Random crops, then base crops, (N, K, 1, z, y, x) of this process; may still lie on the CPU.
            overlaps_NTB: Labels (N, T, B) of this process.
            bases_valid_NB: Which bases take part, bool (N, B) of this process.
            places_NK23: Corners of all crops, see `PlaceHeads.loss`; (N, K, 2, 3) of this process.
            hidden_NT: Random crops with blocks hidden, (N, T, 1, z, y, x), for a model that trains a decoder; may still
                lie on the CPU.
            dropout: Kind and probability.
            dropout_seed: See `dropout_mask`.
            intra_weight: See `voco_loss`.
            inter_weight: See `voco_loss`.
            reg_weight: See `voco_loss`.
            place_weight: Weight of the place loss, of a model that has place heads.
            decoder_weight: Weight of the decoder's loss, of a model that has one.
            chunk: Crops that pass the encoder at once, see `embed_in_chunks`; all when None.
            gathered: Whether batch statistics and the inter-volume ring go over the volumes of all processes, or
                every process computes a loss of its own.
        """
        across: Callable[[Tensor], Tensor] = gather if gathered else lambda local: local
        embeddings_NKE, predictions_NKP = self.embed(crops_NK, chunk)
        embeddings_NKE = across(embeddings_NKE)
        n, k, e = embeddings_NKE.shape
        mask = dropout_mask((n * k, e), kind=dropout[0], p=dropout[1], seed=dropout_seed, device=embeddings_NKE.device)
        student_NKE = self.project(self.student, embeddings_NKE * mask.reshape(n, k, -1))
        with torch.no_grad():
            teacher_NKE = self.project(self.teacher, embeddings_NKE)
        t, bases_valid_NB = self.random_crops, across(bases_valid_NB)
        voco = voco_loss(
            student_NKE[:, :t],
            teacher_NKE[:, :t],
            student_NKE[:, t:],
            teacher_NKE[:, t:],
            across(overlaps_NTB),
            bases_valid=bases_valid_NB,
            intra_weight=intra_weight,
            inter_weight=inter_weight,
            reg_weight=reg_weight,
        )
        place = decoder = voco.total.new_zeros(())
        if self.place_heads is not None and predictions_NKP is not None:
            valid_NK = torch.cat([torch.ones_like(bases_valid_NB[:, :1]).expand(-1, t), bases_valid_NB], dim=1)
            place = self.place_heads.loss(across(predictions_NKP), across(places_NK23), valid_NK)
        if self.decoder_loss is not None:
            own = self.decoder_loss(hidden_NT, crops_NK[:, :t], places_NK23[:, :t], chunk=chunk)
            decoder = across(own[None]).mean()
        total = voco.total + place_weight * place + decoder_weight * decoder
        return StepLoss(voco.intra, voco.inter, voco.reg, place, decoder, total)
