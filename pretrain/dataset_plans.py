"""What an nnU-Net dataset's plans say about volumes and network, through nnU-Net's own classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_voco.checkpoint import CT_SCHEME
from nnunetv2_voco.encoder import Architecture

if TYPE_CHECKING:  # imported where needed: nnU-Net takes a second, and runs without a dataset do not need it
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager


@dataclass(frozen=True, kw_only=True)
class DatasetPlans:
    """What is taken from an nnU-Net dataset's plans.

    Attributes:
        spacing_mm: Of the configuration, along its axes.
        transpose: Order of axes.
        scheme: Name of the normalisation class of the first channel.
        use_mask_for_norm: As in plans.
        properties: Intensity statistics of the first channel.
        patch_size: Of the configuration in voxels.
        architecture: Its network.
        modality: DICOM's name of the first channel's modality; "any" if it is not CT.
    """

    spacing_mm: tuple[float, float, float]
    transpose: tuple[int, int, int]
    scheme: str
    use_mask_for_norm: bool
    properties: dict[str, float]
    patch_size: tuple[int, int, int]
    architecture: Architecture
    modality: str


def find_plans(
    dataset: str, *, configuration: str, plans: str, option: str = "-d"
) -> tuple[Path, "PlansManager", "ConfigurationManager"]:
    """Find a dataset's plans and a 3D configuration in them, through nnU-Net's own classes.

    Args:
        dataset: Name or number.
        configuration: Its name.
        plans: Name of the plans' file, without ending.
        option: What the dataset was named with on the command line, for the error texts.

    Returns:
        The dataset's pre-processed folder, its plans and the configuration.

    Raises:
        ValueError: If nnU-Net's folders are not set, or dataset, plans or configuration do not exist, or the
            configuration is not 3D.
    """
    from nnunetv2.paths import nnUNet_preprocessed
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    if not nnUNet_preprocessed.is_set():
        raise ValueError(f"{option} needs nnU-Net's folders: set the environment variable nnUNet_preprocessed")
    try:
        name = maybe_convert_to_dataset_name(int(dataset) if str(dataset).isdigit() else dataset)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{option} {dataset}: {error}") from None
    folder = Path(str(nnUNet_preprocessed)) / name
    file = folder / f"{plans}.json"
    if not file.is_file():
        there = sorted(p.stem for p in folder.glob("*Plans*.json"))
        raise ValueError(
            f"{name} has no plans {plans} in nnUNet_preprocessed; there are: {', '.join(there) or 'none'}. "
            f"Run nnUNetv2_plan_and_preprocess -d {dataset} or name others with -p"
        )
    manager = PlansManager(str(file))
    if configuration not in manager.available_configurations:
        raise ValueError(
            f"{plans} of {name} have no configuration {configuration}; "
            f"there are: {', '.join(manager.available_configurations)}"
        )
    settings = manager.get_configuration(configuration)
    if len(settings.patch_size) != 3:
        raise ValueError(f"configuration {configuration} of {name} is 2D; VoCo needs a 3D configuration")
    return folder, manager, settings


def read_dataset_plans(dataset: str, *, configuration: str, plans: str) -> DatasetPlans:
    """Read a dataset's plans through nnU-Net's own PlansManager.

    Raises:
        ValueError: As `find_plans`.
    """
    _, manager, settings = find_plans(dataset, configuration=configuration, plans=plans)
    scheme = settings.normalization_schemes[0]
    return DatasetPlans(
        spacing_mm=_three_floats(settings.spacing),
        transpose=_three_integers(manager.transpose_forward),
        scheme=scheme,
        use_mask_for_norm=bool(settings.use_mask_for_norm[0]),
        properties=dict(manager.foreground_intensity_properties_per_channel["0"]),
        patch_size=_three_integers(settings.patch_size),
        architecture=Architecture.from_plans(settings.configuration["architecture"]),
        modality="CT" if scheme == CT_SCHEME else "any",
    )


def _three_integers(values: Sequence[int]) -> tuple[int, int, int]:
    z, y, x = (int(v) for v in values)
    return z, y, x


def _three_floats(values: Sequence[float]) -> tuple[float, float, float]:
    z, y, x = (float(v) for v in values)
    return z, y, x
