"""nnU-Net's plans made small enough for a CPU, and the experiment that both trainings share."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetv2_voco.atomic import write_json
from nnunetv2_voco.evaluation.demo.settings import DemoSettings

CONFIGURATION = "3d_fullres"
SMALL_PLANS = "nnUNetPlans_small"
VOCO_PLANS = f"{SMALL_PLANS}_VoCo_demo"
TWIN_PLANS = f"{SMALL_PLANS}_scratch_demo"
EXPERIMENT_KEY = "nnunetv2_voco_experiment"
"""Block of the plans that the trainers of this package obey; see docs/fine_tuning.md."""


def write_small_plans(folder: Path, *, features: Sequence[int], patch_size: Sequence[int], batch_size: int) -> None:
    """Write `SMALL_PLANS` beside nnU-Net's own plans: fewer and narrower stages, a smaller patch; the rest stays.

    Args:
        folder: Of the pre-processed dataset, with nnUNetPlans.json.
        features: Of each stage; not more stages than planned.
        patch_size: In voxels, (z, y, x).
        batch_size: Patches in a batch.
    """
    plans = _read(folder / "nnUNetPlans.json")
    configuration = plans["configurations"][CONFIGURATION]
    stages = len(features)
    network = configuration["architecture"]["arch_kwargs"]
    network["n_stages"], network["features_per_stage"] = stages, list(features)
    for name in ("kernel_sizes", "strides", "n_conv_per_stage"):
        network[name] = network[name][:stages]
    network["n_conv_per_stage_decoder"] = network["n_conv_per_stage_decoder"][: stages - 1]
    configuration["patch_size"], configuration["batch_size"] = list(patch_size), batch_size
    plans["configurations"], plans["plans_name"] = {CONFIGURATION: configuration}, SMALL_PLANS
    write_json(folder / f"{SMALL_PLANS}.json", plans)


def write_experiment(folder: Path, settings: DemoSettings) -> None:
    """Lay down cases, seed and length in the plans of `voco_plan`, and the same from scratch in `TWIN_PLANS`."""
    plans = _read(folder / f"{VOCO_PLANS}.json")
    cases = [f"phantom_{index:03d}" for index in range(settings.labelled + settings.validation)]
    plans[EXPERIMENT_KEY] = {
        "training_cases": cases[: settings.labelled],
        "validation_cases": cases[settings.labelled :],
        "seed": settings.seed,
        "epochs": settings.epochs,
        "iterations_per_epoch": settings.iterations_per_epoch,
        "val_iterations_per_epoch": settings.val_iterations_per_epoch,
        "initial_lr": settings.initial_lr,
        "from_scratch": False,
    }
    twin = copy.deepcopy(plans)
    twin["plans_name"] = TWIN_PLANS
    twin[EXPERIMENT_KEY]["from_scratch"] = True
    write_json(folder / f"{VOCO_PLANS}.json", plans)
    write_json(folder / f"{TWIN_PLANS}.json", twin)


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))
