"""What nnU-Net has prepared of a data set, read and never written."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunetv2_voco.evaluation.benchmark.config import ConfigError
from nnunetv2_voco.source import PLANS_KEY
from nnunetv2_voco.splits import read_splits
from nnunetv2_voco.target import dataset_folder, read_plans, read_target, settings_of


@dataclass(frozen=True, kw_only=True)
class PlannedDataset:
    """A planned and pre-processed data set.

    Attributes:
        folder: Its pre-processed folder; the name is the data set's.
        plans: The plans that runs start from, without a block of `voco_plan`.
    """

    folder: Path
    plans: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the data set, "Dataset904_Hippocampus"."""
        return self.folder.name

    def check_configuration(self, configuration: str) -> None:
        """Raise unless runs of this configuration can be made from these plans alone.

        Raises:
            ConfigError: If there is no such configuration, it is flat, or the second stage of a cascade.
        """
        try:
            target = read_target(self.folder, self.plans, configuration)
        except ValueError as error:
            raise ConfigError(f"{self.name}: {error}") from None
        if not target.is_3d:
            raise ConfigError(f"{self.name}: {configuration} is flat; only 3D configurations take VoCo's weights")
        if target.num_label_channels:
            raise ConfigError(f"{self.name}: {configuration} needs the predictions of another stage; take 3d_fullres")

    def fold_cases(self, fold: int, configuration: str) -> tuple[list[str], list[str]]:
        """Return training and validation cases of a fold, as nnU-Net has split them or would.

        Where `splits_final.json` is missing the split is computed as nnU-Net does, and the file is not written.

        Raises:
            ConfigError: If there is no such fold or cases of it are not pre-processed.
        """
        folder = self.folder / settings_of(self.plans, configuration)["data_identifier"]
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder; run nnUNetv2_preprocess -c {configuration} first")
        available = sorted(infer_dataset_class(str(folder)).get_identifiers(str(folder)))
        splits = read_splits(self.folder, available)
        if fold >= len(splits):
            raise ConfigError(f"{self.name}: there is no fold {fold}; the split has folds 0 to {len(splits) - 1}")
        training, validation = ([str(case) for case in splits[fold][part]] for part in ("train", "val"))
        missing = sorted({*training, *validation} - set(available))
        if missing:
            raise ConfigError(
                f"{self.name}: {len(missing)} cases of fold {fold} are not pre-processed in {folder.name} "
                f"({', '.join(missing[:3])}…); run nnUNetv2_preprocess again or correct splits_final.json"
            )
        return training, validation


def open_dataset(dataset: str, plans_name: str) -> PlannedDataset:
    """Find a data set among those that nnU-Net has planned.

    Args:
        dataset: Name or number.
        plans_name: The plans to read.

    Raises:
        FileNotFoundError: If data set or plans are missing.
        ConfigError: If nnU-Net knows no such data set, or it lacks what a validation needs.
    """
    try:
        folder = dataset_folder(dataset)
    except RuntimeError:  # nnU-Net knows no such number
        raise FileNotFoundError(
            f"dataset {dataset}: not among those in {os.environ.get('nnUNet_preprocessed')}; run "
            f"nnUNetv2_plan_and_preprocess -d {dataset} first, or correct the number"
        ) from None
    plans = read_plans(folder, plans_name)
    plans.pop(PLANS_KEY, None)
    for needed in ("dataset.json", "dataset_fingerprint.json", "gt_segmentations"):
        if not (folder / needed).exists():
            raise ConfigError(f"{folder / needed}: missing; run nnUNetv2_plan_and_preprocess -d {dataset} again")
    return PlannedDataset(folder=folder, plans=plans)
