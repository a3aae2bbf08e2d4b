"""Folders as `voco_pretrain` leaves them, with measurements that follow a law."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnunetv2_voco.encoder import plain_architecture


def write_run(
    folder: Path,
    *,
    loss: Callable[[int], float],
    steps: int = 800,
    volumes: int = 20,
    features: tuple[int, ...] = (4, 8),
    validations: int = 8,
    spacing_mm: float = 3.0,
    **settings: Any,
) -> Path:
    """Write config, plan and log; the position error is half of the loss."""
    folder.mkdir(parents=True)
    config = {
        "grid": [1, 3, 3], "random_crops": 2, "batch_size": 2, "lr": 1e-3, "min_body_crop": 0.2, "min_body_base": 0.05,
        "intra_weight": 1.0, "inter_weight": 1.0, "reg_weight": 1.0, "steps": steps,
    }  # fmt: skip
    plan = {
        "training": [f"key{i}" for i in range(volumes)],
        "validation": ["held"],
        "architecture": plain_architecture(features).to_plans(),
        "crop_size": [16, 16, 16],
        "target": {"spacing_mm": [spacing_mm] * 3},
    }
    (folder / "config.json").write_text(json.dumps(config | settings))
    (folder / "plan.json").write_text(json.dumps(plan))
    lines = [{"step": 0, "kind": "validation", "intra": 9.0, "accuracy": 0.1}, {"step": 1, "kind": "training"}]
    for i in range(1, validations + 1):
        step = steps * i // validations
        lines.append({"step": step, "kind": "validation", "intra": loss(step), "accuracy": 1 - loss(step) / 2})
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
