"""Does the encoder know where a crop lies? Measured on held-out volumes, against chance and an untrained encoder.

Shape suffixes: R = regions, V = volumes, N = V · R, T = random crops, B = base crops, K = T + B, E = embedding,
P = projection.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from torch import Tensor

from nnunetv2_voco.features import pooled_embedding
from nnunetv2_voco.pretrain.cache import Record, VolumeCache
from nnunetv2_voco.pretrain.crops import region_size
from nnunetv2_voco.pretrain.dataset import CropPlan, Sample, layout_in_region, make_sample
from nnunetv2_voco.pretrain.intensity import Intensity
from nnunetv2_voco.pretrain.loss import best_constant_loss, intra_volume_loss, similarity
from nnunetv2_voco.pretrain.model import VoCoModel, dropout_mask

REGIONS = 48
"""Regions that are looked at, spread over the volumes."""

CROPS_PER_REGION = 4


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What was measured.

    Attributes:
        intra: Intra-volume loss, with dropout of the student's embedding as in training: it is what training lowers.
            A crop that drops out as a whole has nothing left that could be right, and does not count. The other
            figures are measured without dropout.
        chance_zero: That loss if all similarities were 0.
        chance_constant: The least that any constant similarity reaches.
        accuracy: Position accuracy: share of crops whose most similar base is the one with the largest overlap.
        accuracy_augmented: The same with crops and bases augmented independently.
        accuracy_across: The same with the bases of another volume, at the same place relative to the body in the
            plane; None with a single volume.
        blind: Accuracy of guessing among the bases that hold anatomy.
        positives: Mean similarity to the base with the largest overlap.
        negatives: Mean similarity to bases without overlap.
        spread: Standard deviation of the normalised embeddings over crops, 1 if they fill all directions, 0 if they
            collapsed to one.
        crops: Number of crops measured.
    """

    intra: float
    chance_zero: float
    chance_constant: float
    accuracy: float
    accuracy_augmented: float
    accuracy_across: float | None
    blind: float
    positives: float
    negatives: float
    spread: float
    crops: int

    def as_dict(self) -> dict[str, float | int | None]:
        """Plain numbers, for logs and checkpoints."""
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}


class Validator:
    """Measures a model on the same regions and crops every time.

    Args:
        cache: Where the volumes lie.
        records: The volumes to look at.
        plan: Layout of regions and crops; the number of random crops is replaced by `CROPS_PER_REGION`.
        intensity: Normalisation.
        transform: Augmentation for the augmented accuracy.
        seed: The run's seed.
        dropout: Kind and probability, as in training.
        volumes_per_batch: Volumes of a training step. Regions pass the projectors in batches of as many, for their
            norms see other statistics in larger ones, and the loss would be another than in training.
    """

    def __init__(
        self,
        cache: VolumeCache,
        records: Sequence[Record],
        *,
        plan: CropPlan,
        intensity: Intensity,
        transform: BasicTransform,
        seed: int,
        dropout: tuple[str, float],
        volumes_per_batch: int,
    ) -> None:
        self.cache, self.intensity, self.transform, self.seed = cache, intensity, transform, seed
        self.dropout, self.volumes_per_batch = dropout, volumes_per_batch
        self.records = list(records)[:REGIONS]
        self.plan = CropPlan(
            grid=plan.grid,
            size_vox=plan.size_vox,
            random_crops=CROPS_PER_REGION,
            min_body_crop=max(plan.min_body_crop, 0.2),
            min_body_base=max(plan.min_body_base, 0.05),
            spacing_mm=plan.spacing_mm,
        )
        self.regions_per_volume = -(-REGIONS // len(self.records))

    def measure(
        self, model: VoCoModel, device: torch.device, autocast: Callable[[], torch.autocast]
    ) -> tuple[Validation, np.ndarray]:
        """Measure a model.

        Returns:
            The figures, and for each crop whether its most similar base was the right one, bool (crops,).
        """
        plain_VRKE, overlaps, valid = self._embed(model, device, autocast, augmented=False)
        augmented_VRKE, _, _ = self._embed(model, device, autocast, augmented=True)
        student = self._project(model.student, plain_VRKE)
        teacher = self._project(model.teacher, plain_VRKE)
        overlaps_NTB, valid_NB = overlaps.flatten(0, 1), valid.flatten(0, 1)
        t = CROPS_PER_REGION
        crops, bases = student.flatten(0, 1)[:, :t], teacher.flatten(0, 1)[:, t:]
        similarity_NTB = similarity(crops, bases)
        right = _right(similarity_NTB, overlaps_NTB, valid_NB)
        augmented = self._project(model.student, augmented_VRKE).flatten(0, 1)
        augmented_teacher = self._project(model.teacher, augmented_VRKE).flatten(0, 1)
        right_augmented = _right(similarity(augmented[:, :t], augmented_teacher[:, t:]), overlaps_NTB, valid_NB)
        across = None
        if len(self.records) > 1:
            other_bases, other_valid = teacher.roll(-1, 0).flatten(0, 1)[:, t:], valid.roll(-1, 0).flatten(0, 1)
            across = float(_right(similarity(crops, other_bases), overlaps_NTB, other_valid).float().mean())
        zero, constant = best_constant_loss(overlaps_NTB, valid_NB)
        absent = (overlaps_NTB == 0) & valid_NB[:, None]
        best = (overlaps_NTB * valid_NB[:, None]).argmax(-1, keepdim=True)
        directions = F.normalize(student.flatten(0, 2), dim=1)
        figures = Validation(
            intra=self._intra_in_training(model, plain_VRKE, bases, overlaps_NTB, valid_NB),
            chance_zero=zero,
            chance_constant=constant,
            accuracy=float(right.float().mean()),
            accuracy_augmented=float(right_augmented.float().mean()),
            accuracy_across=across,
            blind=float((1 / valid_NB.sum(1).clamp(min=1)).mean()),
            positives=float(similarity_NTB.gather(-1, best).mean()),
            negatives=float((similarity_NTB * absent).sum() / absent.sum().clamp(min=1)),
            spread=float(directions.std(0).square().sum().sqrt()),
            crops=right.numel(),
        )
        return figures, right.flatten().numpy()

    def _intra_in_training(
        self,
        model: VoCoModel,
        embeddings_VRKE: Tensor,
        bases_NBP: Tensor,
        overlaps_NTB: Tensor,
        valid_NB: Tensor,
    ) -> float:
        """Intra-volume loss of a student that sees embeddings after dropout, by the same mask every time.

        The norms of the projector see the zeros of dropped crops, as in training; the loss leaves these crops out.
        """
        mask_VRKE = self._dropout(embeddings_VRKE)
        kept_NT = mask_VRKE.any(-1).flatten(0, 1)[:, :CROPS_PER_REGION].cpu()
        crops = self._project(model.student, embeddings_VRKE * mask_VRKE).flatten(0, 1)[:, :CROPS_PER_REGION]
        losses = [
            intra_volume_loss(crops_TP[None, kept_T], bases_BP[None], overlaps_TB[None, kept_T], valid_B[None])
            for crops_TP, kept_T, bases_BP, overlaps_TB, valid_B in zip(
                crops, kept_NT, bases_NBP, overlaps_NTB, valid_NB, strict=True
            )
            if kept_T.any()
        ]
        return float(torch.stack(losses).mean())

    def _dropout(self, embeddings_VRKE: Tensor) -> Tensor:
        """Factors for the embeddings, the first draw that leaves a random crop; under a high rate one may not."""
        kind, p = self.dropout
        v, r, k, e = embeddings_VRKE.shape
        masks = (
            dropout_mask((v * r * k, e), kind=kind, p=p, seed=(self.seed, 4, draw), device=embeddings_VRKE.device)
            for draw in count()
        )
        return next(m for mask in masks if (m := mask.reshape(v, r, k, -1))[:, :, :CROPS_PER_REGION].any())

    def predict(self, model: VoCoModel, device: torch.device, autocast: Callable[[], torch.autocast]) -> np.ndarray:
        """Similarities of crops to their region's bases, (R, T, B), in the order of `samples`."""
        embeddings_VRKE, _, _ = self._embed(model, device, autocast, augmented=False)
        crops = self._project(model.student, embeddings_VRKE).flatten(0, 1)[:, :CROPS_PER_REGION]
        bases = self._project(model.teacher, embeddings_VRKE).flatten(0, 1)[:, CROPS_PER_REGION:]
        return similarity(crops, bases).numpy()

    def samples(self, *, augmented: bool) -> Iterator[tuple[int, int, np.ndarray, Sample]]:
        """Yield (volume, region, region's lower corner, sample), the same every time.

        Region r of every volume lies at the same place relative to the body, so that volumes can be compared.
        """
        places = np.random.default_rng((self.seed, 2)).random((self.regions_per_volume, 3))
        region_shape = np.asarray(region_size(self.plan.grid, self.plan.size_vox))
        for v, record in enumerate(self.records):
            volume = self.cache.open(record)
            slack = np.asarray(record.shape) - region_shape
            for r, place in enumerate(places):
                corner = np.rint(np.minimum(slack, 0) + place * np.abs(slack)).astype(int)
                rng = np.random.default_rng((self.seed, 3, v, r))
                layout = layout_in_region(rng, volume, corner, self.plan)
                with torch.random.fork_rng(devices=[]):
                    state = np.random.get_state()
                    torch.manual_seed(self.seed + 1000 * v + r)
                    np.random.seed(r)
                    sample = make_sample(
                        volume, layout, self.plan, self.intensity, self.transform if augmented else None
                    )
                    np.random.set_state(state)
                yield v, r, corner, sample

    @torch.no_grad()
    def _embed(
        self, model: VoCoModel, device: torch.device, autocast: Callable[[], torch.autocast], *, augmented: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Embed all samples: (V, R, K, E), overlaps (V, R, T, B), valid (V, R, B)."""
        embeddings, overlaps, valid = [], [], []
        for _v, _r, _corner, sample in self.samples(augmented=augmented):
            with autocast():
                maps = model.encoder(sample.crops.to(device, non_blocking=True))
            embeddings.append(pooled_embedding(maps))
            overlaps.append(sample.overlaps)
            valid.append(sample.bases_valid)
        shape = (len(self.records), self.regions_per_volume)
        return (
            torch.stack(embeddings).unflatten(0, shape),
            torch.stack(overlaps).unflatten(0, shape),
            torch.stack(valid).unflatten(0, shape),
        )

    @torch.no_grad()
    def _project(self, projector: torch.nn.Module, embeddings_VRKE: Tensor) -> Tensor:
        """Project in the same batches every time, each of regions of different volumes as far as there are such.

        A last batch that is not full is filled up with regions of the one before, which are projected once more.
        """
        v, r, k, _ = embeddings_VRKE.shape
        regions_RVKE = embeddings_VRKE.transpose(0, 1).flatten(0, 1)
        size = min(self.volumes_per_batch, v * r)
        projected: list[Tensor] = []
        for start in range(0, v * r, size):
            first = min(start, v * r - size)
            batch = projector(regions_RVKE[first : first + size].flatten(0, 1)).unflatten(0, (size, k))
            projected.append(batch[start - first :])
        return torch.cat(projected).unflatten(0, (r, v)).transpose(0, 1).float().cpu()


def _right(similarity_NTB: Tensor, overlaps_NTB: Tensor, valid_NB: Tensor) -> Tensor:
    """Whether the most similar valid base is the valid one with the largest overlap, bool (N, T)."""
    invalid_N1B = ~valid_NB[:, None]
    chosen = similarity_NTB.masked_fill(invalid_N1B, -1.0).argmax(-1)
    return chosen == overlaps_NTB.masked_fill(invalid_N1B, -1.0).argmax(-1)
