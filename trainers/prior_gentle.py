"""Class prior and a slow encoder, which keeps what it learned while the decoder is learned."""

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)

from nnunetv2_voco.trainers.gentle import nnUNetTrainerVoCo_gentle
from nnunetv2_voco.trainers.prior import nnUNetTrainerVoCo_prior


class nnUNetTrainerVoCo_prior_gentle(nnUNetTrainerVoCo_gentle, nnUNetTrainerVoCo_prior):
    """As `nnUNetTrainerVoCo_prior`; the encoder learns at a third of the decoder's rate.

    AdamW moves every weight by about its rate in a step, so that the first hundred steps at a rate that suits a
    random decoder replace what an encoder knows. The twin from scratch has nothing to keep and learns at the full rate
    throughout: it is `nnUNetTrainerVoCo_prior` from scratch.
    """

    encoder_share = 1 / 3


class nnUNetTrainerVoCo_prior_gentle_150ep(nnUNetTrainerVoCo_prior_gentle):
    """As `nnUNetTrainerVoCo_prior_gentle`, 150 epochs."""

    length_epochs = 150


class nnUNetTrainerVoCo_prior_gentle_5ep(nnUNetTrainerVoCo_prior_gentle):
    """As `nnUNetTrainerVoCo_prior_gentle`, 5 epochs, to try out that everything works."""

    length_epochs = 5


class nnUNetTrainerVoCo_prior_gentle_nomirroring(nnUNetTrainerVoCo_prior_gentle, nnUNetTrainerNoMirroring):
    """As `nnUNetTrainerVoCo_prior_gentle`, without mirroring: for labels that tell left from right."""
