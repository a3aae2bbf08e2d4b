"""Which network a run trains, and on crops of which size."""

from collections.abc import Sequence

import numpy as np

from nnunetv2_voco.encoder import PLAIN_FEATURES, Architecture, check_input_size, plain_architecture
from nnunetv2_voco.pretrain.config import CROP_SIZE, PretrainConfig
from nnunetv2_voco.pretrain.dataset_plans import DatasetPlans
from nnunetv2_voco.scales import scaled


def check_network(config: PretrainConfig, plans: DatasetPlans | None) -> None:
    """Check what can be checked of network and crop size before any volume is read.

    Raises:
        ValueError: As `make_training_plan`.
    """
    if plans is None and config.arch != "plain":
        return  # nnU-Net's presets follow from the volumes' sizes
    architecture = choose_architecture(config, plans, median_shape=np.ones(3), volumes=1)
    if config.crop_size is not None or plans is None:
        check_input_size(architecture, config.crop_size or (CROP_SIZE,) * 3)


def choose_architecture(
    config: PretrainConfig, plans: DatasetPlans | None, *, median_shape: np.ndarray, volumes: int
) -> Architecture:
    """Return the plans' network, nnU-Net's preset or its plain network, with `features`, then `scale` applied.

    Raises:
        ValueError: If the plans' network is residual and a scale is asked for.
    """
    if plans is not None:
        architecture = plans.architecture
    elif config.arch == "plain":
        architecture = plain_architecture(config.features or PLAIN_FEATURES)
    else:
        from nnunetv2_voco.presets import preset_architecture

        architecture = preset_architecture(
            config.arch,
            spacing_mm=config.spacing,
            median_shape=[int(n) for n in median_shape],
            number_of_volumes=volumes,
        )
    if config.features is not None:
        architecture = architecture.with_features(config.features)
    return architecture if config.scale is None else scaled(architecture, config.scale)


def crop_size_for_patch(
    patch_size: Sequence[int], *, stride: np.ndarray, grid: Sequence[int], median_shape: np.ndarray
) -> tuple[int, int, int]:
    """Derive the crop size from a plan: half a patch, less where the volumes are too small for a grid of them.

    Args:
        patch_size: The plan's, (z, y, x) in voxels.
        stride: The network's total stride, of which a crop must be a multiple.
        grid: Base crops along (z, y, x).
        median_shape: Median size of the volumes in voxels.

    Returns:
        Edge lengths in voxels that leave the last stage more than one voxel.
    """
    wanted = np.minimum(np.asarray(patch_size) / 2, np.asarray(median_shape) / np.asarray(grid))
    size = np.maximum(1, np.rint(wanted / stride)) * stride
    while np.prod(size / stride) < 2:
        size = np.where(np.arange(3) == np.argmax(wanted / size), size + stride, size)
    z, y, x = (int(n) for n in size)
    return z, y, x
