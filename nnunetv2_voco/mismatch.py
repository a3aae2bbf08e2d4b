"""Where the images that a plan gives to the network differ from those that pre-training gave it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from nnunetv2_voco.checkpoint import Checkpoint
from nnunetv2_voco.foreign import ForeignCheckpoint
from nnunetv2_voco.report import TransferReport
from nnunetv2_voco.target import settings_of

SPACING_TOLERANCE = 0.1
"""Share by which spacings may differ without a word."""

INTENSITY_TOLERANCE = 0.02
"""Share of the standard deviation by which intensity statistics may differ without a word."""


def input_mismatches(
    checkpoint: Checkpoint | ForeignCheckpoint, plans: dict[str, Any], configuration: str
) -> Iterator[str]:
    """Yield in words what differs between the pre-processing of the checkpoint and of a plan.

    Args:
        checkpoint: What `open_checkpoint` returns; where it says nothing of its pre-processing, that is said.
        plans: nnU-Net's plans.
        configuration: Name of one of their configurations.
    """
    before = checkpoint.preprocessing
    if not before:
        origin = checkpoint.origin if isinstance(checkpoint, ForeignCheckpoint) else "nnunetv2_voco"
        yield f"the file ({origin}) does not say at which spacing and intensities it was trained"
        return
    settings = settings_of(plans, configuration)
    spacing = before.get("spacing_mm")
    if spacing and _differ(spacing, settings["spacing"]):
        yield f"spacing {_times(settings['spacing'])} mm in the plan, {_times(spacing)} mm in pre-training"
    scheme, planned = before.get("normalization_scheme"), settings["normalization_schemes"][0]
    if scheme != planned:
        yield f"{planned} in the plan, {scheme} in pre-training"
        return
    trained_on = before.get("intensity_properties")
    if trained_on:  # schemes that take their statistics from each volume have none
        now = plans["foreground_intensity_properties_per_channel"].get("0", {})
        names = [name for name in ("mean", "std", "percentile_00_5", "percentile_99_5") if name in now]
        if any(abs(now[name] - trained_on[name]) > INTENSITY_TOLERANCE * trained_on["std"] for name in names):
            yield f"intensities {_statistics(now)} in the plan, {_statistics(trained_on)} in pre-training"


def with_mismatches(
    report: TransferReport, checkpoint: Checkpoint | ForeignCheckpoint, plans: dict[str, Any], configuration: str
) -> TransferReport:
    """Return the account of a transfer with a note for each of `input_mismatches`."""
    return replace(report, notes=(*report.notes, *input_mismatches(checkpoint, plans, configuration)))


def _differ(a: Any, b: Any) -> bool:
    return bool((np.abs(np.log(np.divide(a, b))) > np.log1p(SPACING_TOLERANCE)).any())


def _statistics(properties: Mapping[str, float]) -> str:
    low, high = properties["percentile_00_5"], properties["percentile_99_5"]
    return f"{properties['mean']:.0f} ± {properties['std']:.0f} within {low:.0f}…{high:.0f}"


def _times(values: Any) -> str:
    return " × ".join(f"{value:.3g}" for value in values)
