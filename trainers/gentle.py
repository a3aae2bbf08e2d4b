"""Gentle: the pre-trained encoder changes slowly while the decoder is learned."""

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)

from nnunetv2_voco.trainers.adamw import nnUNetTrainerVoCo_adamw
from nnunetv2_voco.trainers.optimizer_groups import part_decoder_and_encoder
from nnunetv2_voco.trainers.schedule import EpochLRScheduler, polynomial_lr


class nnUNetTrainerVoCo_gentle(nnUNetTrainerVoCo_adamw):
    """AdamW from 1e-3 with nnU-Net's polynomial decay; the encoder learns at a tenth of the decoder's rate.

    An experiment: it keeps what the encoder knows, and no gain over a twin from scratch is shown so far
    (docs/results.md). From scratch there is nothing to keep: the twin's encoder learns at the full rate, so that it is
    `nnUNetTrainerVoCo_adamw` from scratch.

    Attributes:
        encoder_share: Rate of the encoder as a share of the decoder's.
    """

    encoder_share = 0.1

    def configure_optimizers(self) -> tuple:
        """Split the optimiser into decoder and encoder; the decay stays."""
        optimizer, _ = super().configure_optimizers()
        share = 1.0 if self.from_scratch else self.encoder_share
        part_decoder_and_encoder(optimizer, self.network)

        def rates(epoch: int) -> tuple[float, float]:
            rate = polynomial_lr(epoch, start=0, end=self.num_epochs, peak=self.initial_lr)
            return rate, rate * share

        return optimizer, EpochLRScheduler(optimizer, rates)


class nnUNetTrainerVoCo_gentle_150ep(nnUNetTrainerVoCo_gentle):
    """As `nnUNetTrainerVoCo_gentle`, 150 epochs."""

    length_epochs = 150


class nnUNetTrainerVoCo_gentle_5ep(nnUNetTrainerVoCo_gentle):
    """As `nnUNetTrainerVoCo_gentle`, 5 epochs, to try out that everything works."""

    length_epochs = 5


class nnUNetTrainerVoCo_gentle_nomirroring(nnUNetTrainerVoCo_gentle, nnUNetTrainerNoMirroring):
    """As `nnUNetTrainerVoCo_gentle`, without mirroring: for labels that tell left from right."""
