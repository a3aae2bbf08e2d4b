"""A run of `voco_pretrain` small enough for tests: five coarse phantoms, a network of 4, 8, 8 features, a few steps."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from nnunetv2_voco.encoder import plain_architecture
from nnunetv2_voco.pretrain.model import VoCoModel
from nnunetv2_voco.pretrain.phantom_files import write_phantoms
from nnunetv2_voco.pretrain.run import Request, pretrain

ARCHITECTURE = plain_architecture((4, 8, 8))
SETTINGS: dict[str, Any] = {
    "spacing": (6.0, 6.0, 6.0),
    "crop_size": (16, 16, 16),
    "features": (4, 8, 8),
    "projection_size": 16,
    "batch_size": 2,
    "steps": 8,
    "warmup_steps": 2,
    "lr": 1e-3,
    "inter_ramp": 0,
    "val_every": 4,
    "save_every": 2,
    "log_every": 1,
    "num_workers": 0,
    "device": "cpu",
}


def write_ct(folder: Path) -> Path:
    write_phantoms(folder, number=5, spacing_mm=6.0, dicom=False)
    return folder


def run_tiny(ct: Path | None, out: Path, *, resume: bool = False, dry_run: bool = False, **settings: Any) -> str | None:
    """Run in this process; the verdict."""
    return pretrain(
        Request(
            folders=() if ct is None else (str(ct),),
            out=out,
            settings=SETTINGS | settings,
            num_processes=0,
            resume=resume,
            dry_run=dry_run,
        )
    )


def options(**settings: Any) -> list[str]:
    """`SETTINGS` as a command line."""
    words = []
    for name, value in (SETTINGS | settings).items():
        words += [
            f"--{name.replace('_', '-')}",
            ",".join(str(v) for v in value) if isinstance(value, tuple) else str(value),
        ]
    return words


def start(*arguments: object, env: dict[str, str] | None = None) -> subprocess.Popen:
    """Start `voco_pretrain` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from nnunetv2_voco.pretrain.cli import main; main()", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
    )


def call(*arguments: object) -> tuple[int, str]:
    """Exit code and output."""
    process = start(*arguments)
    output, _ = process.communicate(timeout=200)
    return process.returncode, output


def weights(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "voco_encoder.pth", weights_only=True)["network_weights"]


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def make_model(seed: int = 0, random_crops: int = 2, projection_size: int = 16, *, decoder: bool = False) -> VoCoModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return VoCoModel(
            ARCHITECTURE,
            random_crops=random_crops,
            projection_size=projection_size,
            crop_size=(8, 8, 8),
            decoder=decoder,
        )


def random_batch(seed: int = 0, volumes: int = 2) -> tuple[torch.Tensor, ...]:
    """Crops, overlaps, valid bases, places and hidden crops for two random crops and nine bases of 8³."""
    generator = torch.Generator().manual_seed(seed)
    crops = torch.randn(volumes, 11, 1, 8, 8, 8, generator=generator)
    overlaps = torch.rand(volumes, 2, 9, generator=generator).softmax(-1)
    lower = torch.rand(volumes, 11, 1, 3, generator=generator)
    places = torch.cat([lower, lower + 1 / 3], dim=2)
    hidden = crops[:, :2] * (torch.rand(volumes, 2, 1, 8, 8, 8, generator=generator) < 0.5)
    return crops, overlaps, torch.ones(volumes, 9, dtype=torch.bool), places, hidden


LOSS: dict[str, Any] = {
    "dropout": ("element", 0.2),
    "dropout_seed": (0, 0),
    "intra_weight": 1.0,
    "inter_weight": 1.0,
    "reg_weight": 1.0,
    "place_weight": 1.0,
    "decoder_weight": 1.0,
}
