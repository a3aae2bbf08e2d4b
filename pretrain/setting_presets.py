"""Settings by name: what `--tiny`, `--paper` and `--preset` set."""

from typing import Any

REGION_PRESETS: dict[str, dict[str, Any]] = {
    "abdomen": {"spacing": (1.5, 1.5, 1.5), "window": (-175.0, 250.0)},
    "headneck": {"spacing": (1.5, 1.5, 1.5), "window": (-175.0, 250.0)},
    "chest": {"spacing": (5.0, 1.25, 1.25), "window": (-1000.0, 500.0)},
}
"""Spacing (z, y, x) in mm and HU window of the paper's pre-processing, by body region."""

TINY: dict[str, Any] = {
    "spacing": (3.0, 3.0, 3.0),
    "crop_size": (32, 32, 32),
    "features": (8, 16, 32, 64, 128),
    "random_crops": 4,
    "batch_size": 3,
    "steps": 700,
    "warmup_steps": 20,
    "lr": 1e-3,
    "inter_weight": 0.0,
    "val_every": 100,
    "save_every": 50,
    "log_every": 10,
}
"""`--tiny`: the same problem in millimetres at half the resolution, for a laptop's CPU. Without the inter-volume loss,
which on a dozen volumes costs more than it brings (docs/results.md)."""

PAPER: dict[str, Any] = {
    "grid": (1, 3, 3),
    "lr": 1e-4,
    "warmup_steps": 5000,
    "steps": 250_000,
    "inter_ramp": 0,
    "place_weight": 0.0,
    "flip_p": 0.2,
    "rotate_p": 0.2,
    "dropout": "crop",
    "pseudo_on": "crops",
    "min_body_crop": 0.0,
    "min_body_base": 0.0,
}
"""`--paper`: the published settings where our defaults differ."""
