"""What the settings of a run must be. Every check raises ValueError with the field, its value and what is expected."""

import re
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from nnunetv2_voco.inspection import ARCHITECTURES
from nnunetv2_voco.pretrain.recipes import RECIPES
from nnunetv2_voco.scales import SCALES

if TYPE_CHECKING:
    from nnunetv2_voco.pretrain.config import PretrainConfig

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DROPOUTS = ("element", "crop")
PSEUDO_LABELLED = ("patches", "crops")

KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "positive": (lambda value: value > 0, "must be positive"),
    "not negative": (lambda value: value >= 0, "must not be negative"),
    "share": (lambda value: 0 <= value < 1, "must lie in [0, 1)"),
}
"""What numbers must be, and how that is said."""

CHOICES = {
    "arch": ARCHITECTURES,
    "precision": PRECISIONS,
    "dropout": DROPOUTS,
    "pseudo_on": PSEUDO_LABELLED,
    "recipe": tuple(RECIPES),
}
"""Fields that name one of a few."""

LENGTHS = {"spacing": 3, "grid": 3, "crop_size": 3, "window": 2}
"""Fields that hold so many numbers."""


def check_settings(config: "PretrainConfig") -> None:
    """Check every field by itself and those that depend on each other.

    Raises:
        ValueError: At the first that is wrong.
    """
    _check_numbers(config)
    for name, choices in CHOICES.items():
        if getattr(config, name) not in choices:
            raise ValueError(f"{name} {getattr(config, name)!r}: must be one of {', '.join(choices)}")
    _check_labelled(config)
    _check_network(config)
    _check_samples(config)
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", config.device):
        raise ValueError(f"device {config.device!r}: must be auto, cpu, mps, cuda or cuda with a number such as cuda:1")


def _check_numbers(config: "PretrainConfig") -> None:
    for name, length in LENGTHS.items():
        value = getattr(config, name)
        if value is not None and len(value) != length:
            raise ValueError(f"{name} {value}: {length} numbers are expected")
    for name in ("spacing", "grid", "crop_size", "features"):
        value = getattr(config, name)
        if value is not None and not all(number > 0 for number in value):
            raise ValueError(f"{name} {value}: every number must be positive")
    for entry in fields(config):
        value, kind = getattr(config, entry.name), entry.metadata["kind"]
        if kind is not None and value is not None and not KINDS[kind][0](value):
            raise ValueError(f"{entry.name} {value}: {KINDS[kind][1]}")


def _check_labelled(config: "PretrainConfig") -> None:
    if RECIPES[config.recipe].labelled != bool(config.labelled):
        raise ValueError(
            f"recipe {config.recipe} with labelled {', '.join(config.labelled) or 'not given'}: "
            + ("name a labelled dataset" if not config.labelled else "take supervised, semi or omni")
        )
    if config.labelled and config.dataset is None:
        raise ValueError("labelled: dataset must be given; its plans decide what network is trained")
    if not (config.fold == "all" or config.fold.isdigit()):
        raise ValueError(f"fold {config.fold!r}: must be a number or all")


def _check_network(config: "PretrainConfig") -> None:
    if config.scale is not None and config.scale not in SCALES:
        raise ValueError(f"scale {config.scale!r}: must be one of {', '.join(SCALES)}")
    if config.scale is not None and config.arch != "plain":
        raise ValueError(f"scale {config.scale}: is for --arch plain; {config.arch} names its size itself")


def _check_samples(config: "PretrainConfig") -> None:
    if config.window is not None and not config.window[0] < config.window[1]:
        raise ValueError(f"window {config.window}: the lower bound must be below the upper one")
    if config.grid[0] * config.grid[1] * config.grid[2] < 2:
        raise ValueError(f"grid {config.grid}: at least two base crops are needed to contrast")
    for name in ("place_weight", "decoder_weight"):
        if getattr(config, name) and (config.flip_p or config.rotate_p):
            raise ValueError(
                f"{name} {getattr(config, name)} with flip_p {config.flip_p} and rotate_p {config.rotate_p}: a flipped "
                f"or turned crop shows no place of a body; set either {name} or both probabilities to 0"
            )
