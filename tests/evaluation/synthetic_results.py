"""Finished runs without training: nnU-Net's files as they would lie there."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nnunetv2_voco.evaluation.benchmark.run import Machine, Run, write_manifest

CASES = ("a", "b", "c", "d")


def make_run(**changes: Any) -> Run:
    settings = {
        "dataset": "Dataset999_Tiny", "configuration": "3d_fullres", "trainer": "nnUNetTrainerVoCo",
        "initialisation": "scratch", "schedule": "stock", "labels": "5%", "training_cases": 2, "validation_cases": 4,
        "fold": 0, "seed": 0, "nsd_tolerance_mm": 1.0,
    } | changes  # fmt: skip
    name = "_".join(str(settings[key]) for key in ("initialisation", "schedule", "training_cases", "fold", "seed"))
    return Run(id=name, plans=f"nnUNetPlans_VoCoBench_{name}", **settings)


def finish(
    out: Path, run: Run, dice: Callable[[str, str], float | None], curve: list[float], surfaces: Mapping | None = None
) -> None:
    """Write what nnU-Net and the benchmark leave behind; `dice` is asked for each case and label."""
    run.summary(out).parent.mkdir(parents=True)
    entries = [
        {
            "prediction_file": f"/somewhere/validation/{case}.nii.gz",
            "reference_file": f"/somewhere/gt/{case}.nii.gz",
            "metrics": {key: {"Dice": dice(case, key), "IoU": 0.0} for key in ("1", "(1, 2)")},
        }
        for case in CASES
    ]
    run.summary(out).write_text(json.dumps({"metric_per_case": entries}))
    labels = {"background": 0, "organ": 1, "whole": [1, 2]}
    (run.folder(out).parent / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    run.surfaces(out).write_text(json.dumps({"nsd_tolerance_mm": 1.0, "scores": surfaces or {}}))
    columns = {"pseudo_dice": curve, "train_loss": curve, "val_loss": curve, "lr": curve, "seconds": [1.0] * len(curve)}
    run.curve(out).write_text(json.dumps(columns))


def make_benchmark(out: Path, *, gain: float = 0.1) -> list[Run]:
    """Twin and pre-trained, two amounts, three seeds; the latter better by `gain` and twice as fast."""
    runs = [
        make_run(initialisation=name, training_cases=count, labels=f"{5 * count // 2}%", seed=seed)
        for seed in range(3)
        for count in (2, 20)
        for name in ("scratch", "ct")
    ]
    out.mkdir(parents=True, exist_ok=True)
    write_manifest(out, runs, Machine(device="cpu", threads=1, workers=0))
    for run in runs:
        more = gain if run.initialisation == "ct" else 0.0
        of_case = dict(zip(CASES, (0.4, 0.5, 0.6, 0.7), strict=True))
        speed = 2 if run.initialisation == "ct" else 1
        finish(
            out,
            run,
            lambda case, key, run=run, more=more, of_case=of_case: of_case[case] + more + 0.02 * run.seed,
            [0.7 * min(1.0, speed * epoch / 20) for epoch in range(1, 21)],
            {case: {"1": {"hd95_mm": 3.0 - 10 * more, "nsd": 0.5 + more}} for case in CASES},
        )
    return runs
