"""Frozen: the encoder stays as it was pre-trained."""

from nnunetv2_voco.trainers.nnUNetTrainerVoCo import nnUNetTrainerVoCo
from nnunetv2_voco.transfer import encoder_tensors


class nnUNetTrainerVoCo_frozen(nnUNetTrainerVoCo):
    """The stock schedule for the decoder; the encoder is fixed.

    A probe of what the encoder has learned, not a way to the best model: on average 55 Dice against 76 in OpenMind
    (arXiv 2412.17041), and S3D (arXiv 2410.23132) advises against it. As parameters that were not loaded would stay
    random, the checkpoint must cover the whole encoder.
    """

    minimum_share = 1.0

    def configure_optimizers(self) -> tuple:
        """Switch off the encoder's gradients before nnU-Net makes the optimiser and wraps the network."""
        for tensor in encoder_tensors(self.network).values():
            tensor.requires_grad_(False)
        return super().configure_optimizers()


class nnUNetTrainerVoCo_frozen_150ep(nnUNetTrainerVoCo_frozen):
    """As `nnUNetTrainerVoCo_frozen`, 150 epochs."""

    length_epochs = 150


class nnUNetTrainerVoCo_frozen_5ep(nnUNetTrainerVoCo_frozen):
    """As `nnUNetTrainerVoCo_frozen`, 5 epochs, to try out that everything works."""

    length_epochs = 5
