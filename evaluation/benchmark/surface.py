"""Distances between the surfaces of predicted and true segmentations, which nnU-Net does not compute.

HD95 and NSD are MONAI's; NSD with sub-voxel surfaces weighted by their area, as defined by Nikolov et al.
(arXiv 1809.04430), HD95 between the centres of the voxels at the surface.
"""

import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from nnunetv2_voco.atomic import write_json
from nnunetv2_voco.evaluation.benchmark.run import Run, can_measure_surfaces


def surface_scores(
    truth_ZYX: np.ndarray, prediction_ZYX: np.ndarray, *, spacing_mm: Iterable[float], tolerance_mm: float
) -> tuple[float, float]:
    """Return HD95 in mm and the normalised surface Dice at a tolerance.

    Args:
        truth_ZYX: True mask, bool.
        prediction_ZYX: Predicted mask, bool.
        spacing_mm: Voxel size in the same order.
        tolerance_mm: Distance within which surfaces count as equal.

    Returns:
        HD95, NaN unless both masks have voxels, and NSD in [0, 1], NaN if neither has any and 0 if one has none.
    """
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    if not truth_ZYX.any() or not prediction_ZYX.any():
        return math.nan, math.nan if truth_ZYX.any() == prediction_ZYX.any() else 0.0
    masks = [torch.from_numpy(mask[None, None]) for mask in (prediction_ZYX, truth_ZYX)]
    shared = {"include_background": True, "spacing": tuple(spacing_mm)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI's own, about an argument that it passes to itself
        hd95 = compute_hausdorff_distance(*masks, percentile=95, **shared)
        nsd = compute_surface_dice(*masks, class_thresholds=[tolerance_mm], use_subvoxels=True, **shared)
    return float(hd95), float(nsd)


def score_missing(out: Path, runs: Sequence[Run], console: Console) -> None:
    """Score every finished run that has not been scored, with a bar for a person."""
    missing = [run for run in runs if run.is_finished(out) and read_scores(out, run) is None]
    if missing and can_measure_surfaces():
        for run in track(missing, "HD95 and NSD", console=console, transient=True, disable=not console.is_terminal):
            score_run(out, run)


def read_scores(out: Path, run: Run) -> dict[str, Any] | None:
    """Return the scores of a run, as `score_validation` does; None if there are none at its tolerance."""
    if not run.surfaces(out).is_file():
        return None
    content = json.loads(run.surfaces(out).read_text(encoding="utf-8"))
    return content["scores"] if content["nsd_tolerance_mm"] == run.nsd_tolerance_mm else None


def score_run(out: Path, run: Run) -> None:
    """Score one finished run."""
    model = run.folder(out).parent
    plans, dataset = (json.loads((model / f"{name}.json").read_text(encoding="utf-8")) for name in ("plans", "dataset"))
    scores = score_validation(run.summary(out), plans, dataset, tolerance_mm=run.nsd_tolerance_mm)
    write_json(run.surfaces(out), {"nsd_tolerance_mm": run.nsd_tolerance_mm, "scores": scores})


def score_validation(
    summary_file: Path, plans: Mapping[str, Any], dataset: Mapping[str, Any], *, tolerance_mm: float
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Score every case of nnU-Net's summary.

    Args:
        summary_file: nnU-Net's summary.json.
        plans: The plans of the run, which name the reader of its images.
        dataset: The content of dataset.json.
        tolerance_mm: See `surface_scores`.

    Returns:
        For each case, for each label or region as the summary names it, hd95_mm and nsd; None where not defined.
    """
    from nnunetv2.evaluation.evaluate_predictions import key_to_label_or_region, region_or_label_to_mask
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(dict(plans))
    reader = manager.image_reader_writer_class()
    ignored = manager.get_label_manager(dict(dataset)).ignore_label
    scores: dict[str, dict[str, dict[str, float | None]]] = {}
    summary = json.loads(summary_file.read_text(encoding="utf-8"))
    for case in summary["metric_per_case"]:
        truth, properties = reader.read_seg(case["reference_file"])
        prediction, _ = reader.read_seg(case["prediction_file"])
        counts = np.ones_like(truth[0], dtype=bool) if ignored is None else truth[0] != ignored
        of_case = scores.setdefault(case_name(case["prediction_file"], dataset["file_ending"]), {})
        for key in case["metrics"]:
            label = key_to_label_or_region(key)
            masks = [region_or_label_to_mask(labels[0], label) & counts for labels in (truth, prediction)]
            hd95, nsd = surface_scores(*masks, spacing_mm=properties["spacing"], tolerance_mm=tolerance_mm)
            of_case[key] = {"hd95_mm": _or_none(hd95), "nsd": _or_none(nsd)}
    return scores


def case_name(prediction_file: str, file_ending: str) -> str:
    """Return the case that a file of predictions belongs to."""
    return Path(prediction_file).name.removesuffix(file_ending)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
