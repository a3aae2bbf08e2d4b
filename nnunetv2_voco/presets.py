"""nnU-Net's residual presets for data without a plan: its own planners, asked about a folder of volumes."""

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nnunetv2_voco.encoder import Architecture

PLANNERS = {
    "resenc-m": "nnUNetPlannerResEncM",
    "resenc-l": "nnUNetPlannerResEncL",
    "resenc-xl": "nnUNetPlannerResEncXL",
}
"""Name of the preset → nnU-Net's planner class."""

_DATASET = "Dataset000_Preset"


def preset_architecture(
    preset: str, *, spacing_mm: Sequence[float], median_shape: Sequence[int], number_of_volumes: int
) -> Architecture:
    """Return the 3D network that nnU-Net's planner configures for CTs of the given spacing and size.

    The planner reads a dataset from nnU-Net's folders; it is given a temporary one that holds nothing but its
    description.

    Args:
        preset: A key of `PLANNERS`.
        spacing_mm: Target spacing, (z, y, x).
        median_shape: Median size of the volumes at that spacing in voxels, (z, y, x).
        number_of_volumes: How many there are.

    Raises:
        ValueError: If the preset is unknown.
    """
    if preset not in PLANNERS:
        raise ValueError(f"preset {preset!r}: must be one of {', '.join(PLANNERS)}")
    with (
        tempfile.TemporaryDirectory() as folder,
        _nnunet_folders(Path(folder)),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        from nnunetv2.experiment_planning.experiment_planners.residual_unets import residual_encoder_unet_planners

        planner = getattr(residual_encoder_unet_planners, PLANNERS[preset])(_DATASET)
        voxels = float(np.prod(np.asarray(median_shape, float))) * number_of_volumes
        plan = planner.get_plans_for_configuration(
            np.asarray(spacing_mm, float), np.asarray(median_shape), "preset", voxels, {}
        )
    return Architecture.from_plans(plan["architecture"])


@contextlib.contextmanager
def _nnunet_folders(folder: Path) -> Iterator[None]:
    """Point nnU-Net at a temporary dataset, and back at the user's folders afterwards."""
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "foreground": 1},
        "numTraining": 0,
        "file_ending": ".nii.gz",
        "dataset": {},
    }
    fingerprint = {"median_relative_size_after_cropping": 1.0}
    (folder / _DATASET).mkdir()
    for name, content in (("dataset.json", description), ("dataset_fingerprint.json", fingerprint)):
        (folder / _DATASET / name).write_text(json.dumps(content), encoding="utf-8")
    variables = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(dict.fromkeys(variables, str(folder)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
