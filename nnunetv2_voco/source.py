"""Which weights a fine-tuning starts from: named in the plans by `voco_plan`, or by an environment variable."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunetv2_voco.checkpoint import Checkpoint, CheckpointError
from nnunetv2_voco.foreign import ForeignCheckpoint, local_file, open_checkpoint

PLANS_KEY = "nnunetv2_voco"
"""Key of the plans under which `voco_plan` writes a `WeightSource`."""

VARIABLE = "nnUNet_voco_checkpoint"
"""Environment variable that names the checkpoint; further switches: see `SWITCHES`."""

SWITCHES = ("decoder", "across_families", "insist")
"""Switches of a `WeightSource`, each read from `nnUNet_voco_` and its name."""


class NoWeightsNamed(ValueError):
    """Neither the plans nor the environment say which weights to start from."""


@dataclass(frozen=True, kw_only=True)
class WeightSource:
    """A checkpoint and how to use it.

    Attributes:
        checkpoint: A path, or "hf://owner/name[/file]".
        sha256: Digest of the file, if it was recorded.
        decoder: Transfer the decoder, too, where it fits.
        across_families: Allow plain weights in a residual network and the reverse.
        insist: Go on however small a share of the encoder is loaded.
    """

    checkpoint: str
    sha256: str | None = None
    decoder: bool = False
    across_families: bool = False
    insist: bool = False

    def to_plans(self) -> dict[str, Any]:
        """Return the block that goes into the plans under `PLANS_KEY`."""
        return asdict(self)

    def open(self) -> Checkpoint | ForeignCheckpoint:
        """Read the checkpoint.

        Raises:
            FileNotFoundError: If it is not there.
            CheckpointError: If it is none, or not the file that was recorded.
        """
        if self.sha256 is not None:
            found = digest(local_file(self.checkpoint))
            if found != self.sha256:
                raise CheckpointError(
                    f"{self.checkpoint}: has changed since the plans were written (SHA-256 {found[:12]}…, there "
                    f"{self.sha256[:12]}…); restore the file, or run voco_plan again under a new name"
                )
        return open_checkpoint(self.checkpoint)


def weight_source(plans: Mapping[str, Any]) -> WeightSource:
    """Return the source that the plans name or, failing that, the environment.

    Raises:
        NoWeightsNamed: If neither names one.
    """
    if PLANS_KEY in plans:
        return WeightSource(**plans[PLANS_KEY])
    checkpoint = os.environ.get(VARIABLE)
    if not checkpoint:
        raise NoWeightsNamed(
            "no weights are named to start from. Either write them into plans of their own,\n"
            "  voco_plan -d DATASET -pc CHECKPOINT        and train with  -p nnUNetPlans_VoCo_NAME\n"
            f"or set the environment variable\n  export {VARIABLE}=CHECKPOINT\n"
            "To train the same network from scratch take -tr nnUNetTrainerVoCoScratch."
        )
    decoder, across_families, insist = (_is_on(f"nnUNet_voco_{switch}") for switch in SWITCHES)
    return WeightSource(checkpoint=checkpoint, decoder=decoder, across_families=across_families, insist=insist)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        sha256 = hashlib.sha256()
        while block := file.read(1 << 20):
            sha256.update(block)
    return sha256.hexdigest()


def _is_on(variable: str) -> bool:
    """Read a switch as nnU-Net reads `nnUNet_compile`."""
    return os.environ.get(variable, "").lower() in ("true", "1", "t")
