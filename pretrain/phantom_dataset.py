"""Phantoms with their labels as a raw dataset of nnU-Net: training cases, and test cases with labels of their own."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_voco.atomic import write_json
from nnunetv2_voco.pretrain.phantom import LABELLINGS, LABELS, LOOK_ALIKES, Phantom, make_phantom
from nnunetv2_voco.pretrain.phantom_files import to_sitk

SPINE_LEVELS = 6
"""Levels of the spine, from below; the last one has what lies above."""

STREAM = 1
"""Tells the individuals of datasets from those of `write_phantoms`, which have the same seeds and numbers."""


def write_phantom_dataset(
    raw: str | Path,
    dataset: int,
    *,
    training: int = 10,
    test: int = 10,
    seed: int = 0,
    spacing_mm: float = 3.0,
    labelling: str = "organs",
) -> Path:
    """Write `Dataset<number>_<name of the labelling>`: imagesTr, labelsTr, imagesTs, labelsTs and dataset.json.

    The same seed gives the same bytes, and case i does not depend on how many there are.

    Args:
        raw: nnUNet_raw; is created if need be.
        dataset: Number of the dataset, 1 to 999.
        training: Cases to train on.
        test: Cases to evaluate on.
        seed: Not negative.
        spacing_mm: Distance of voxels along every axis.
        labelling: A key of `LABELLINGS`: all organs, the pairs of `LOOK_ALIKES`, or levels of the spine, two vertebrae
            each; all else is background.

    Returns:
        The dataset's folder.

    Raises:
        ValueError: An argument is impossible.
        FileExistsError: The dataset is there already.
    """
    if not 1 <= dataset <= 999 or training < 1 or test < 0 or seed < 0 or not 0.5 <= spacing_mm <= 10:
        raise ValueError(
            f"dataset {dataset}, training {training}, test {test}, seed {seed}, spacing {spacing_mm} mm: expected 1 to "
            "999, at least 1, at least 0, at least 0, and 0.5 to 10 mm"
        )
    folder = Path(raw) / f"Dataset{dataset:03d}_{LABELLINGS[labelling]}"
    if folder.exists():
        raise FileExistsError(f"{folder} exists; give another number, or remove it")
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / name).mkdir(parents=True)
    names = label_names(labelling)
    for index in range(training + test):
        phantom = make_phantom(np.random.default_rng((seed, STREAM, index)), spacing_mm=spacing_mm)
        ending = "Tr" if index < training else "Ts"
        case = f"phantom_{index:03d}"
        _write(folder / f"images{ending}" / f"{case}_0000.nii.gz", phantom.image_zyx, phantom.spacing_mm)
        _write(folder / f"labels{ending}" / f"{case}.nii.gz", chosen_labels(phantom, labelling), phantom.spacing_mm)
    write_json(
        folder / "dataset.json",
        {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, **{name: value for value, name in enumerate(names, start=1)}},
            "numTraining": training,
            "look_alikes": look_alikes(labelling),  # nnU-Net passes over what it does not know
            "file_ending": ".nii.gz",
        },
    )
    return folder


def label_names(labelling: str) -> list[str]:
    """Names of the labels in the order of their values, which start with 1."""
    if labelling == "spine":
        return [f"spine_{level}" for level in range(1, SPINE_LEVELS + 1)]
    return [name for pair in LOOK_ALIKES for name in pair] if labelling == "look-alikes" else list(LABELS)


def look_alikes(labelling: str) -> list[list[str]]:
    """Groups of labels that differ by place alone."""
    return [label_names(labelling)] if labelling == "spine" else [list(pair) for pair in LOOK_ALIKES]


def chosen_labels(phantom: Phantom, labelling: str) -> np.ndarray:
    """Return the labels (Z, Y, X) of a phantom that a dataset holds, uint8."""
    if labelling == "spine":
        return np.minimum(-(-phantom.vertebrae_zyx.astype(int) // 2), SPINE_LEVELS).astype(np.uint8)
    values = np.zeros(1 + max(LABELS.values()), np.uint8)
    for value, name in enumerate(label_names(labelling), start=1):
        values[LABELS[name]] = value
    return values[phantom.labels_zyx]


def _write(path: Path, array_zyx: np.ndarray, spacing_mm: tuple[float, float, float]) -> None:
    sitk.WriteImage(to_sitk(array_zyx, spacing_mm), str(path), useCompression=True, compressionLevel=1)
