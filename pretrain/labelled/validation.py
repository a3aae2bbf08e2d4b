"""Dice on patches of labelled cases that are held out, as nnU-Net's trainer measures it while it trains."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from nnunetv2.training.loss.dice import get_tp_fp_fn_tn
from torch import Tensor

from nnunetv2_voco.pretrain.labelled.model import SegmentationModel
from nnunetv2_voco.pretrain.labelled.patches import LabelledDataset, LabelledPatch, join_labelled
from nnunetv2_voco.pretrain.labelled.sets import IGNORE_LABEL, LabelledData

PATCHES = 48
"""Patches that are looked at."""

BATCH = 4


class DiceValidator:
    """Measures a network on the same patches every time.

    Args:
        data: The labelled sets.
        dataset: Their held-out patches.
    """

    def __init__(self, data: LabelledData, dataset: LabelledDataset) -> None:
        self.data, self.dataset = data, dataset

    def patches(self, number: int) -> Iterator[LabelledPatch]:
        """Yield the first patches in batches."""
        for start in range(0, number, BATCH):
            patches = [self.dataset[i] for i in range(start, min(number, start + BATCH))]
            yield join_labelled(patches)

    @torch.no_grad()
    def measure(
        self, model: SegmentationModel, device: torch.device, autocast: Callable[[], torch.autocast]
    ) -> dict[str, float | None]:
        """Return Dice of each class over all patches of sets that annotate it; None for a class that is in none."""
        counts = torch.zeros(3, self.data.num_classes, dtype=torch.float64)
        for batch in self.patches(PATCHES):
            predicted = self.predict(model, batch.image, device, autocast)
            for row, index in enumerate(batch.set_index.tolist()):
                annotated = torch.tensor(self.data.sets[index].annotated)
                counts += count_voxels(predicted[row], batch.targets[0][row].long(), annotated)
        true, false, missed = counts.numpy()[:, 1:]
        with np.errstate(invalid="ignore"):
            dice = np.where(true + missed > 0, 2 * true / (2 * true + false + missed), np.nan)
        return {
            name: None if np.isnan(value) else round(float(value), 6)
            for name, value in zip(self.data.class_names, dice, strict=True)
        }

    def predict(
        self, model: SegmentationModel, images: Tensor, device: torch.device, autocast: Callable[[], torch.autocast]
    ) -> Tensor:
        """Return the most probable classes, int64 (N, 1, z, y, x) on the CPU."""
        with autocast(), torch.no_grad():
            logits = model.segment(images.to(device))[0]
        return logits.argmax(dim=1, keepdim=True).cpu()


def count_voxels(predicted: Tensor, target: Tensor, annotated: Tensor) -> Tensor:
    """Count true positives, false positives and false negatives of each class in one patch.

    A class that the patch's set does not annotate counts as background where it is predicted, and has no counts.

    Args:
        predicted: Classes, (1, z, y, x).
        target: Classes or `IGNORE_LABEL`, (1, z, y, x).
        annotated: For each class whether the set annotates it, (C,).

    Returns:
        float64 (3, C).
    """
    known = torch.where(annotated[predicted], predicted, 0)
    valid = target != IGNORE_LABEL
    one_hot = torch.nn.functional.one_hot(known, len(annotated)).movedim(-1, 1).float()
    true, false, missed, _ = get_tp_fp_fn_tn(
        one_hot, torch.where(valid, target, 0)[None], axes=(0, 2, 3, 4), mask=valid[None].float()
    )
    return torch.stack([true, false, missed]).double() * annotated


def mean_dice(dice: dict[str, float | None]) -> float | None:
    """Mean over the classes that were measured."""
    values = [value for value in dice.values() if value is not None]
    return float(np.mean(values)) if values else None


def describe_dice(step: int, now: dict[str, float | None], untrained: dict[str, float | None]) -> str:
    """One line about a measurement."""
    classes = ", ".join(f"{name} {value:.2f}" for name, value in now.items() if value is not None)
    return (
        f"  labelled patches for validation, step {step}: mean Dice {_number(mean_dice(now))} "
        f"(untrained {_number(mean_dice(untrained))}): {_shorten(classes)}"
    )


def dice_verdict(now: dict[str, float | None], untrained: dict[str, float | None], *, held_out: bool) -> str:
    """Say in plain words how well the network segments."""
    measured = sum(value is not None for value in now.values())
    cases = "held-out labelled cases" if held_out else "the labelled training cases (fold all holds none out)"
    return (
        f"On patches of {cases} the network has a mean Dice of {_number(mean_dice(now))} over "
        f"{measured} classes (untrained {_number(mean_dice(untrained))})."
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _shorten(text: str, length: int = 400) -> str:
    return text if len(text) <= length else f"{text[:length]}…"
