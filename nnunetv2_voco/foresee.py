"""What a transfer into a data set's plans will do, seen before anything is trained."""

from typing import Any, NamedTuple

from torch import nn

from nnunetv2_voco.checkpoint import Checkpoint
from nnunetv2_voco.foreign import ForeignCheckpoint
from nnunetv2_voco.mismatch import with_mismatches
from nnunetv2_voco.report import TransferReport
from nnunetv2_voco.target import Target
from nnunetv2_voco.transfer import MINIMUM_SHARE, load_encoder


class Foreseen(NamedTuple):
    """What a transfer gives: the filled network, and the trainer's account of it."""

    network: nn.Module
    report: TransferReport


def foresee(
    target: Target,
    plans: dict[str, Any],
    checkpoint: Checkpoint | ForeignCheckpoint,
    *,
    decoder: bool = False,
    across_families: bool = False,
    insist: bool = False,
) -> Foreseen:
    """Build the network of a configuration and fill it from the checkpoint, as the trainer will.

    Args:
        target: The configuration.
        plans: The plans that it is part of.
        checkpoint: What `open_checkpoint` returns; for Swin weights see `foresee_swin`.
        decoder: As `load_encoder`.
        across_families: As `load_encoder`.
        insist: Accept however small a share of the encoder, in place of what the trainers demand.

    Returns:
        Network and account, which notes where the plans' images differ from those of pre-training.

    Raises:
        TransferError: If the weights do not fit.
    """
    network = target.build()
    report = load_encoder(
        network,
        checkpoint,
        num_label_channels=target.num_label_channels,
        decoder=decoder,
        classes=target.classes,
        across_families=across_families,
        minimum_share=0 if insist else MINIMUM_SHARE,
    )
    return Foreseen(network, with_mismatches(report, checkpoint, plans, target.configuration))
