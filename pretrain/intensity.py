"""From stored integers to what the network sees, by nnU-Net's own normalisation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization

from nnunetv2_voco.checkpoint import CT_SCHEME
from nnunetv2_voco.pretrain.preprocess import HISTOGRAM_EDGES, STEPS_PER_UNIT


@dataclass(frozen=True)
class Intensity:
    """The normalisation of a run.

    Attributes:
        scheme: Name of nnU-Net's normalisation class.
        properties: Its statistics, named as in nnU-Net's plans; empty where the class takes its own from each volume
            and has been applied before the volume was stored.
        window: Span of the normalised values, lowest and highest, that the intensity shift refers to.
    """

    scheme: str
    properties: dict[str, float]
    window: tuple[float, float]

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        """Normalise stored voxels, int16 of any shape, to float32."""
        if self.scheme != CT_SCHEME:
            return stored / np.float32(STEPS_PER_UNIT)
        return CTNormalization(use_mask_for_norm=False, intensityproperties=self.properties).run(stored)


def ct_intensity(properties: dict[str, float]) -> Intensity:
    """Normalise HU by nnU-Net's CTNormalization with the given statistics."""
    bounds = np.array([properties["percentile_00_5"], properties["percentile_99_5"]], np.float32)
    normalise = CTNormalization(use_mask_for_norm=False, intensityproperties=properties)
    low, high = normalise.run(bounds)
    return Intensity(CT_SCHEME, dict(properties), (float(low), float(high)))


def stored_intensity(scheme: str) -> Intensity:
    """Read back volumes that nnU-Net's `scheme` normalised before they were stored."""
    window = (0.0, 1.0) if "01" in scheme else (-2.0, 2.0)  # z-scores: where all but a few per cent lie
    return Intensity(scheme, {}, window)


def window_properties(window_hu: tuple[float, float]) -> dict[str, float]:
    """Statistics with which CTNormalization maps an HU window to 0…1, as the paper does."""
    low, high = window_hu
    return _complete({"mean": low, "std": high - low, "percentile_00_5": low, "percentile_99_5": high})


def body_properties(histograms: Iterable[Sequence[int] | np.ndarray]) -> dict[str, float]:
    """Statistics of the body's voxels over a folder, every volume with equal weight.

    Args:
        histograms: Counts per volume in the bins of `preprocess.HISTOGRAM_EDGES`, taken one at a time.

    Returns:
        Entries as in nnU-Net's plans; none if there are no histograms.
    """
    density, volumes = np.zeros(len(HISTOGRAM_EDGES) - 1), 0
    for histogram in histograms:
        density += np.asarray(histogram, float) / max(1, np.sum(histogram))
        volumes += 1
    if not volumes:
        return {}
    density /= volumes
    density /= density.sum()
    centres = (HISTOGRAM_EDGES[:-1] + HISTOGRAM_EDGES[1:]) / 2
    mean = float((density * centres).sum())
    cumulative = np.concatenate([[0], density.cumsum()])

    def percentile(share: float) -> float:
        return float(np.interp(share, cumulative, HISTOGRAM_EDGES))

    return _complete(
        {
            "mean": mean,
            "std": float(np.sqrt((density * (centres - mean) ** 2).sum())),
            "percentile_00_5": percentile(0.005),
            "percentile_99_5": percentile(0.995),
            "median": percentile(0.5),
        }
    )


def _complete(properties: dict[str, Any]) -> dict[str, float]:
    """Round to what a person reads, and add the entries of nnU-Net's plans that no normalisation uses."""
    full = {"median": properties["mean"], "min": properties["percentile_00_5"], "max": properties["percentile_99_5"]}
    return {name: round(float(value), 4) for name, value in {**full, **properties}.items()}
