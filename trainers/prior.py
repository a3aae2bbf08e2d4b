"""Class prior: the network starts by calling everything background, so that the first steps need not teach it that."""

import math

import torch
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)
from torch import nn

from nnunetv2_voco.trainers.adamw import nnUNetTrainerVoCo_adamw
from nnunetv2_voco.transfer import unwrap

PRIOR = 0.005
"""Probability that the network gives to each class when it starts; the idea is of Lin et al. (arXiv 1708.02002)."""


class nnUNetTrainerVoCo_prior(nnUNetTrainerVoCo_adamw):
    """AdamW from 1e-3 with nnU-Net's polynomial decay; segmentation layers start with a bias towards background.

    With nnU-Net's initial values the first hundreds of steps teach a network that most voxels are background. Until
    then their gradient, the same everywhere, moves all weights, pre-trained ones too. For trainings of a few thousand
    steps and less; a long one forgets its first steps. The twin from scratch starts with the same bias.
    """

    def initialize(self) -> None:
        """Build the network, then set the biases; a continued training replaces them with its own."""
        super().initialize()
        bias_towards_background(unwrap(self.network), background=not self.label_manager.has_regions)


def bias_towards_background(network: nn.Module, *, background: bool) -> None:
    """Let each class have the probability `PRIOR` where features are zero, in place.

    Args:
        network: A network with nnU-Net's decoder.
        background: Whether the first output is the background; with regions, none is.
    """
    with torch.no_grad():
        for layer in network.decoder.seg_layers:  # type: ignore[union-attr]
            classes = layer.out_channels - background
            odds = PRIOR / max(1 - PRIOR * classes, PRIOR) if background else PRIOR / (1 - PRIOR)
            layer.bias.fill_(math.log(odds))
            if background:
                layer.bias[0] = 0


class nnUNetTrainerVoCo_prior_150ep(nnUNetTrainerVoCo_prior):
    """As `nnUNetTrainerVoCo_prior`, 150 epochs."""

    length_epochs = 150


class nnUNetTrainerVoCo_prior_5ep(nnUNetTrainerVoCo_prior):
    """As `nnUNetTrainerVoCo_prior`, 5 epochs, to try out that everything works."""

    length_epochs = 5


class nnUNetTrainerVoCo_prior_nomirroring(nnUNetTrainerVoCo_prior, nnUNetTrainerNoMirroring):
    """As `nnUNetTrainerVoCo_prior`, without mirroring: for labels that tell left from right."""
