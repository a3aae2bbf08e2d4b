"""segmentations.png: a few labelled patches for validation, with what is labelled and what the network says."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnunetv2_voco.pretrain.figures import save_figure
from nnunetv2_voco.pretrain.labelled.model import SegmentationModel
from nnunetv2_voco.pretrain.labelled.sets import IGNORE_LABEL
from nnunetv2_voco.pretrain.labelled.validation import DiceValidator

PATCHES_SHOWN = 8


def draw_segmentations(
    path: Path,
    validator: DiceValidator,
    model: SegmentationModel,
    device: torch.device,
    autocast: Callable[[], torch.autocast],
) -> None:
    """Draw of each patch the axial slice with most labels: labels in the upper row, predictions below."""
    figure = Figure(figsize=(1.9 * PATCHES_SHOWN, 4.2), layout="constrained")
    panels = figure.subplots(2, PATCHES_SHOWN, squeeze=False)
    for axes in panels.ravel():
        axes.axis("off")
    column = 0
    for batch in validator.patches(PATCHES_SHOWN):
        predicted = validator.predict(model, batch.image, device, autocast)
        for image, target, prediction in zip(batch.image, batch.targets[0], predicted, strict=True):
            z = int((target[0] > 0).sum(dim=(1, 2)).argmax())
            for row, labels in ((0, target), (1, prediction)):
                _overlay(panels[row, column], image[0, z].numpy(), labels[0, z].numpy(), validator.data.num_classes)
            column += 1
    panels[0, 0].set_title("labelled", loc="left", fontsize=9)
    panels[1, 0].set_title("predicted", loc="left", fontsize=9)
    figure.suptitle(f"Labelled patches for validation, {validator.data.num_classes - 1} classes", fontsize=10)
    save_figure(figure, path)


def _overlay(axes: Axes, image: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    axes.imshow(image, cmap="gray")
    shown = np.ma.masked_where((labels == 0) | (labels == IGNORE_LABEL), labels)
    axes.imshow(shown, cmap="hsv", vmin=1, vmax=num_classes, alpha=0.55, interpolation="nearest")
