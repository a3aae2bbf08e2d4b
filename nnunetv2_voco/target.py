"""The networks that a data set's plans ask for, without training anything."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunetv2_voco.classes import output_classes
from nnunetv2_voco.encoder import Architecture, build_network


@dataclass(frozen=True, kw_only=True)
class Target:
    """A configuration of some plans, and what its network needs to be built.

    Attributes:
        configuration: Name of the configuration.
        architecture: Its network.
        patch_size: In voxels, (z, y, x).
        num_input_channels: Image channels and, for a cascade's second stage, label channels.
        num_label_channels: How many of them are label channels.
        num_output_channels: Segmentation heads.
        classes: Their names, background first; none for regions.
    """

    configuration: str
    architecture: Architecture
    patch_size: tuple[int, ...]
    num_input_channels: int
    num_label_channels: int
    num_output_channels: int
    classes: tuple[str, ...] = ()

    @property
    def is_3d(self) -> bool:
        """Whether the network works on volumes."""
        return len(self.patch_size) == 3

    def build(self) -> nn.Module:
        """Build the network with nnU-Net's initialisation."""
        return build_network(
            self.architecture,
            num_input_channels=self.num_input_channels,
            num_output_channels=self.num_output_channels,
        )


def dataset_folder(dataset: str) -> Path:
    """Return the pre-processed folder of a data set given by name or number.

    Raises:
        FileNotFoundError: If it is not there.
    """
    folder = Path(nnUNet_preprocessed) / maybe_convert_to_dataset_name(dataset)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; run nnUNetv2_plan_and_preprocess -d {dataset} first")
    return folder


def read_plans(folder: Path, plans_name: str) -> dict[str, Any]:
    """Read plans from a data set's pre-processed folder.

    Raises:
        FileNotFoundError: If there are none of that name; the message lists those that are there.
    """
    file = folder / f"{plans_name}.json"
    if not file.is_file():
        others = sorted(path.stem for path in folder.glob("*Plans*.json"))
        raise FileNotFoundError(f"{file}: no such plans; {folder.name} has {', '.join(others) or 'none'}")
    return json.loads(file.read_text(encoding="utf-8"))


def settings_of(plans: dict[str, Any], configuration: str) -> dict[str, Any]:
    """Return the settings of a configuration, those that it inherits included, as they stand in the plans.

    nnU-Net's `ConfigurationManager` needs whole plans, for it rebuilds the network of those of an older nnU-Net.
    """
    settings = plans["configurations"][configuration]
    if "inherits_from" not in settings:
        return settings
    return settings_of(plans, settings["inherits_from"]) | settings


def read_target(folder: Path, plans: dict[str, Any], configuration: str) -> Target:
    """Describe one configuration of `plans`.

    Raises:
        ValueError: If the plans have no such configuration.
    """
    if configuration not in plans["configurations"]:
        raise ValueError(f"no configuration {configuration}; the plans have {', '.join(plans['configurations'])}")
    dataset = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    manager = PlansManager(plans)
    settings = manager.get_configuration(configuration)
    labels = manager.get_label_manager(dataset)
    return Target(
        configuration=configuration,
        architecture=Architecture.from_plans(settings.configuration["architecture"]),
        patch_size=tuple(settings.patch_size),
        num_input_channels=determine_num_input_channels(manager, settings, dataset),
        num_label_channels=len(labels.foreground_labels) if settings.previous_stage_name is not None else 0,
        num_output_channels=labels.num_segmentation_heads,
        classes=output_classes(dataset["labels"]),
    )
