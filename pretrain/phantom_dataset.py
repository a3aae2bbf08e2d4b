"""Phantoms with their labels as a raw dataset of nnU-Net: training cases, and test cases with labels of their own."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_voco.atomic import write_json
from nnunetv2_voco.pretrain.phantom import LABELS, LOOK_ALIKES, make_phantom
from nnunetv2_voco.pretrain.phantom_files import to_sitk

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
    only_look_alikes: bool = False,
) -> Path:
    """Write `Dataset<number>_Phantoms`: imagesTr, labelsTr, imagesTs, labelsTs and dataset.json.

    The same seed gives the same bytes, and case i does not depend on how many there are.

    Args:
        raw: nnUNet_raw; is created if need be.
        dataset: Number of the dataset, 1 to 999.
        training: Cases to train on.
        test: Cases to evaluate on.
        seed: Not negative.
        spacing_mm: Distance of voxels along every axis.
        only_look_alikes: Label the pairs of `LOOK_ALIKES` alone; all else is background.

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
    folder = Path(raw) / f"Dataset{dataset:03d}_{'LookAlikes' if only_look_alikes else 'Phantoms'}"
    if folder.exists():
        raise FileExistsError(f"{folder} exists; give another number, or remove it")
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / name).mkdir(parents=True)
    kept = [name for pair in LOOK_ALIKES for name in pair] if only_look_alikes else list(LABELS)
    labels = {name: value for value, name in enumerate(kept, start=1)}
    values = np.zeros(1 + max(LABELS.values()), np.uint8)
    for name, value in labels.items():
        values[LABELS[name]] = value
    for index in range(training + test):
        phantom = make_phantom(np.random.default_rng((seed, STREAM, index)), spacing_mm=spacing_mm)
        ending = "Tr" if index < training else "Ts"
        case = f"phantom_{index:03d}"
        _write(folder / f"images{ending}" / f"{case}_0000.nii.gz", phantom.image_zyx, phantom.spacing_mm)
        _write(folder / f"labels{ending}" / f"{case}.nii.gz", values[phantom.labels_zyx], phantom.spacing_mm)
    write_json(
        folder / "dataset.json",
        {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, **labels},
            "numTraining": training,
            "look_alikes": [list(pair) for pair in LOOK_ALIKES],  # nnU-Net passes over what it does not know
            "file_ending": ".nii.gz",
        },
    )
    return folder


def _write(path: Path, array_zyx: np.ndarray, spacing_mm: tuple[float, float, float]) -> None:
    sitk.WriteImage(to_sitk(array_zyx, spacing_mm), str(path), useCompression=True, compressionLevel=1)
