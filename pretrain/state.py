"""The resumable state of a run: one file, written atomically."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nnunetv2_voco.atomic import write_atomically


@dataclass
class Progress:
    """What a run knows beside its weights. Every random choice is a function of seed and step, so none is here.

    Attributes:
        step: Steps done.
        ramp_start: Step at which the inter-volume weight began to grow; None while it has not.
        skipped_steps: Steps whose loss or gradient was not finite.
        untrained: Validation of the untrained encoder, plain numbers.
        untrained_right: For each validation crop, whether the untrained encoder was right.
        latest: The latest validation, plain numbers.
        dice_untrained: Dice of each class on held-out labelled patches before the first step, if there are any.
        dice: The latest.
        precision: Autocast type in use.
        requested_precision: The setting it was chosen for.
        processes: Number of processes.
        accumulate: Batches that each of them took a step; with another number of both together a continued run would
            draw other batches.
    """

    step: int = 0
    ramp_start: int | None = None
    skipped_steps: int = 0
    untrained: dict[str, Any] = field(default_factory=dict)
    untrained_right: list[bool] = field(default_factory=list)
    latest: dict[str, Any] = field(default_factory=dict)
    dice_untrained: dict[str, float | None] = field(default_factory=dict)
    dice: dict[str, float | None] = field(default_factory=dict)
    precision: str = "fp32"
    requested_precision: str = "auto"
    processes: int = 1
    accumulate: int = 1

    def goes_on_with(self, *, processes: int, accumulate: int, gather: bool) -> bool:
        """Whether so many processes, each joining so many batches a step, draw the batches that the run drew.

        Where embeddings are gathered, a step depends only on the volumes of all processes together.
        """
        if gather:
            return processes * accumulate == self.processes * self.accumulate
        return (processes, accumulate) == (self.processes, self.accumulate)


def save_state(
    path: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    progress: Progress,
    labeller: nn.Module | None = None,
) -> None:
    """Write everything that a continued run needs; `labeller` gives the pseudo-labels, once there are any."""
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "progress": dict(vars(progress)),
        "labeller": None if labeller is None else labeller.state_dict(),
    }
    write_atomically(path, lambda temporary: torch.save(content, temporary))


def load_state(path: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Progress, dict, dict | None]:
    """Restore model and optimiser as `save_state` wrote them, in place.

    Returns:
        The progress, the scaler's state, and the labeller's weights if there were any.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    return Progress(**content["progress"]), content["scaler"], content.get("labeller")
