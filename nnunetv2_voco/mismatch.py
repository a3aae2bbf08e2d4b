"""Where the images that a plan gives to the network differ from those that pre-training gave it."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nnunetv2_voco.checkpoint import Checkpoint
from nnunetv2_voco.foreign import ForeignCheckpoint

SPACING_TOLERANCE = 0.1
"""Share by which spacings may differ without a word."""

INTENSITY_TOLERANCE = 0.02
"""Share of the standard deviation by which intensity statistics may differ without a word."""


def input_mismatches(
    checkpoint: Checkpoint | ForeignCheckpoint, plans: Mapping[str, Any], configuration: Mapping[str, Any]
) -> Iterator[str]:
    """Yield in words what differs between the pre-processing of the checkpoint and of a plan.

    Args:
        checkpoint: What `open_checkpoint` returns; of another program's it is said that nothing is known.
        plans: nnU-Net's plans.
        configuration: One of their configurations, with `spacing` and `normalization_schemes`.
    """
    if isinstance(checkpoint, ForeignCheckpoint):
        yield f"the file ({checkpoint.origin}) does not say at which spacing and intensities it was trained"
        return
    before = checkpoint.preprocessing
    spacing = before.get("spacing_mm")
    if spacing and _differ(spacing, configuration["spacing"]):
        yield f"spacing {_times(configuration['spacing'])} mm in the plan, {_times(spacing)} mm in pre-training"
    scheme, planned = before.get("normalization_scheme"), configuration["normalization_schemes"][0]
    if scheme != planned:
        yield f"{planned} in the plan, {scheme} in pre-training"
        return
    trained_on = before.get("intensity_properties")
    if trained_on:  # schemes that take their statistics from each volume have none
        now = plans["foreground_intensity_properties_per_channel"].get("0", {})
        names = [name for name in ("mean", "std", "percentile_00_5", "percentile_99_5") if name in now]
        if any(abs(now[name] - trained_on[name]) > INTENSITY_TOLERANCE * trained_on["std"] for name in names):
            yield f"intensities {_statistics(now)} in the plan, {_statistics(trained_on)} in pre-training"


def _differ(a: Any, b: Any) -> bool:
    return bool((np.abs(np.log(np.divide(a, b))) > np.log1p(SPACING_TOLERANCE)).any())


def _statistics(properties: Mapping[str, float]) -> str:
    low, high = properties["percentile_00_5"], properties["percentile_99_5"]
    return f"{properties['mean']:.0f} ± {properties['std']:.0f} within {low:.0f}…{high:.0f}"


def _times(values: Any) -> str:
    return " × ".join(f"{value:.3g}" for value in values)
