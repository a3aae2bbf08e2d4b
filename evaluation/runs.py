"""Reading finished runs of `voco_pretrain`: how long, on how much, how large, and how well."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class UnusableRun(ValueError):
    """A folder is no run, or one that cannot be compared; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One validation.

    Attributes:
        step: After how many optimiser steps.
        loss: Intra-volume loss on the held-out volumes.
        accuracy: Position accuracy there, in [0, 1].
    """

    step: int
    loss: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run.

    Attributes:
        name: Of its folder.
        steps: Optimiser steps.
        volumes: Volumes trained on.
        parameters: Of the encoder.
        task: What must be equal for runs to be compared: spacing, crops and losses, in words.
        held_out: Keys of the held-out volumes.
        curve: Its validations, the untrained encoder's left out.
    """

    name: str
    steps: int
    volumes: int
    parameters: int
    task: str
    held_out: frozenset[str]
    curve: tuple[Measurement, ...]


_SAME = (
    "grid", "random_crops", "batch_size", "lr", "min_body_crop", "min_body_base", "intra_weight", "inter_weight",
    "reg_weight",
)  # fmt: skip
_SAME_WHERE_THERE = ("accumulate", "weights", "recipe")
"""Settings that must be equal beside spacing and crop size; the latter are not in every version."""


def read_run(folder: Path) -> Run:
    """Read what `voco_pretrain` left in a folder.

    Raises:
        UnusableRun: If it is no run, or one that has not finished.
    """
    config, plan = _json(folder / "config.json"), _json(folder / "plan.json")
    try:
        records = [json.loads(line) for line in _text(folder / "log.jsonl").splitlines()]
    except json.JSONDecodeError as error:
        raise UnusableRun(f"{folder / 'log.jsonl'}: not one JSON record a line ({error})") from None
    try:
        curve = tuple(
            Measurement(step=r["step"], loss=float(r["intra"]), accuracy=float(r["accuracy"]))
            for r in records
            if r["kind"] == "validation" and r["step"] > 0
        )
        task = {name: config[name] for name in _SAME}
        task |= {name: config[name] for name in _SAME_WHERE_THERE if name in config}
        task |= {"crop_size": plan["crop_size"], "spacing_mm": plan["target"]["spacing_mm"]}
        last = curve[-1].step if curve else 0
        if last < config["steps"]:
            raise UnusableRun(f"{folder}: has not finished: validated at step {last} of {config['steps']}")
        return Run(
            name=folder.resolve().name,
            steps=config["steps"],
            volumes=len(plan["training"]),
            parameters=_encoder_parameters(plan["architecture"]),
            task=", ".join(f"{name} {value}" for name, value in task.items()),
            held_out=frozenset(plan["validation"]),
            curve=curve,
        )
    except (KeyError, TypeError) as error:
        raise UnusableRun(
            f"{folder}: its config.json, plan.json or log.jsonl lack {error}; made by another version?"
        ) from None


def _encoder_parameters(block: dict[str, Any]) -> int:
    """Count without allocating anything."""
    import torch

    from nnunetv2_voco.encoder import Architecture, build_encoder

    with torch.device("meta"):
        encoder = build_encoder(Architecture.from_plans(block))
    return sum(parameter.numel() for parameter in encoder.parameters())


def _json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(_text(file))
    except json.JSONDecodeError as error:
        raise UnusableRun(f"{file}: not JSON ({error})") from None


def _text(file: Path) -> str:
    if not file.is_file():
        raise UnusableRun(f"{file}: no such file; expected a folder that voco_pretrain -o has filled")
    return file.read_text(encoding="utf-8")
