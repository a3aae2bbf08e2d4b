"""What a probe looks at: windows of pre-processed cases, and labelled voxels in them.

Shape suffixes: N = voxels, 3 = (z, y, x).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

OUTSIDE = -1
"""nnU-Net's label for voxels outside the image's non-zero region; they count as background."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A part of a case as the network sees it, and the voxels in it whose labels are to be read off.

    Attributes:
        image: float32 (channels, z, y, x), padded with zeros where the case is smaller, as nnU-Net does.
        places_N3: Voxels of the window.
        classes_N: Index of each voxel's class in `ProbeDataset.labels`.
        weights_N: How many voxels of its class in this window each stands for.
    """

    image: np.ndarray
    places_N3: np.ndarray
    classes_N: np.ndarray
    weights_N: np.ndarray


class ProbeDataset:
    """A pre-processed dataset, read through nnU-Net's own dataset class.

    Args:
        folder: Pre-processed folder of the dataset.
        plans: Its plans.
        configuration: Name of a configuration.

    Attributes:
        labels: Label values by name, background first, without the ignore label.
        cases: Names of the cases, sorted.

    Raises:
        FileNotFoundError: If the configuration was not pre-processed.
        ValueError: If there is no label but the background.
    """

    def __init__(self, folder: Path, plans: dict[str, Any], *, configuration: str) -> None:
        manager = PlansManager(plans)
        dataset_json = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        cases = folder / manager.get_configuration(configuration).data_identifier
        if not cases.is_dir() or not any(cases.iterdir()):
            raise FileNotFoundError(
                f"{cases}: no pre-processed cases; run nnUNetv2_preprocess -d {folder.name} "
                f"-plans_name {plans['plans_name']} -c {configuration} first"
            )
        self._dataset = infer_dataset_class(str(cases))(str(cases))
        self.cases: tuple[str, ...] = tuple(self._dataset.identifiers)
        label_manager = manager.get_label_manager(dataset_json)
        names = {value: name for name, value in dataset_json["labels"].items() if isinstance(value, int)}
        self.labels = {names.get(int(value), f"label {value}"): int(value) for value in label_manager.all_labels}
        if len(self.labels) < 2:
            raise ValueError(f"{folder / 'dataset.json'}: no label but the background; there is nothing to probe")

    def windows(
        self, case: str, *, size_vox: Sequence[int], count: int, voxels_per_class: int, seed: int
    ) -> list[Window]:
        """Draw windows around labelled structures of a case, and voxels of every class in them.

        The same arguments give the same windows, whatever else was drawn before.

        Args:
            case: One of `cases`.
            size_vox: Edge lengths of a window.
            count: Windows, each around a random voxel of a random class; one where it covers the whole case.
            voxels_per_class: Most voxels of each class, all windows together.
            seed: Of the drawing.
        """
        rng = np.random.default_rng((seed, 5, self.cases.index(case)))
        data, seg, _, _ = self._dataset.load_case(case)
        segmentation = np.asarray(seg[:])[0]
        corners = draw_corners(rng, segmentation, list(self.labels.values()), size_vox=size_vox, count=count)
        each = max(1, voxels_per_class // len(corners))
        return [
            self._cut(rng, np.asarray(data[:]), segmentation, corner, size_vox=size_vox, voxels_per_class=each)
            for corner in corners
        ]

    def _cut(
        self,
        rng: np.random.Generator,
        data: np.ndarray,
        segmentation: np.ndarray,
        corner: Sequence[int],
        *,
        size_vox: Sequence[int],
        voxels_per_class: int,
    ) -> Window:
        box = [[low, low + size] for low, size in zip(corner, size_vox, strict=True)]
        inside = crop_and_pad_nd(np.ones_like(segmentation, dtype=bool), box, False)
        labels = crop_and_pad_nd(segmentation, box, OUTSIDE)
        labels[labels == OUTSIDE] = 0
        image = crop_and_pad_nd(data, box, 0).astype(np.float32)
        return Window(image=image, **draw_voxels(rng, labels, inside, self.labels, voxels_per_class=voxels_per_class))


def draw_corners(
    rng: np.random.Generator, segmentation: np.ndarray, labels: Sequence[int], *, size_vox: Sequence[int], count: int
) -> list[tuple[int, ...]]:
    """Draw lower corners of windows around random voxels of random foreground classes, without repetitions.

    Windows lie within the case where it is large enough, and around its middle where it is not.
    """
    slack = np.array(segmentation.shape) - np.array(size_vox)
    present = [label for label in labels if label > 0 and (segmentation == label).any()]
    corners: dict[tuple[int, ...], None] = {}
    for _ in range(count):
        if present:
            places = np.flatnonzero(segmentation == present[rng.integers(len(present))])
            centre = np.unravel_index(places[rng.integers(len(places))], segmentation.shape)
        else:
            centre = tuple(rng.integers(n) for n in segmentation.shape)
        corner = np.clip(np.array(centre) - np.array(size_vox) // 2, 0, np.maximum(slack, 0))
        corner = np.where(slack < 0, slack // 2, corner)
        corners[tuple(int(c) for c in corner)] = None
    return list(corners)


def draw_voxels(
    rng: np.random.Generator,
    labels_ZYX: np.ndarray,
    inside_ZYX: np.ndarray,
    labels: Mapping[str, int],
    *,
    voxels_per_class: int,
) -> dict[str, np.ndarray]:
    """Draw voxels of every class in a window: `places_N3`, `classes_N` and `weights_N` of a `Window`."""
    places, classes, weights = [], [], []
    for index, label in enumerate(labels.values()):
        found = np.flatnonzero((labels_ZYX == label) & inside_ZYX)
        chosen = rng.choice(found, min(voxels_per_class, len(found)), replace=False)
        places.append(np.stack(np.unravel_index(chosen, labels_ZYX.shape), axis=1))
        classes.append(np.full(len(chosen), index))
        weights.append(np.full(len(chosen), len(found) / max(1, len(chosen))))
    return {
        "places_N3": np.concatenate(places),
        "classes_N": np.concatenate(classes),
        "weights_N": np.concatenate(weights),
    }
