"""Decoder and encoder as two groups of one optimiser, so that each can have a rate of its own."""

from torch import nn
from torch.optim import Optimizer

from nnunetv2_voco.transfer import encoder_tensors


def part_decoder_and_encoder(optimizer: Optimizer, network: nn.Module) -> None:
    """Part the one group of a fresh optimiser in two: the decoder's parameters, then the encoder's.

    One optimiser rather than two, so that checkpoints, gradient clipping and scaling stay nnU-Net's.

    Args:
        optimizer: Over all parameters of `network`; its settings hold for both groups.
        network: Any network whose encoder is known to `encoder_tensors`.
    """
    (group,) = optimizer.param_groups
    encoder = {id(parameter) for parameter in encoder_tensors(network).values()}
    parts = ([p for p in group["params"] if id(p) not in encoder], [p for p in group["params"] if id(p) in encoder])
    optimizer.param_groups = [{**group, "params": part} for part in parts]
