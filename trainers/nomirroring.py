"""Without mirroring: for labels that tell left from right."""

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)

from nnunetv2_voco.trainers.adamw import nnUNetTrainerVoCo_adamw
from nnunetv2_voco.trainers.nnUNetTrainerVoCo import nnUNetTrainerVoCo


class nnUNetTrainerVoCo_nomirroring(nnUNetTrainerVoCo, nnUNetTrainerNoMirroring):
    """As `nnUNetTrainerVoCo`; neither training nor prediction mirror the image, as nnU-Net's own variant.

    A mirrored kidney is a kidney of the other side under the name of this one.
    """


class nnUNetTrainerVoCo_nomirroring_150ep(nnUNetTrainerVoCo_nomirroring):
    """As `nnUNetTrainerVoCo_nomirroring`, 150 epochs."""

    length_epochs = 150


class nnUNetTrainerVoCo_nomirroring_5ep(nnUNetTrainerVoCo_nomirroring):
    """As `nnUNetTrainerVoCo_nomirroring`, 5 epochs, to try out that everything works."""

    length_epochs = 5


class nnUNetTrainerVoCo_adamw_nomirroring(nnUNetTrainerVoCo_adamw, nnUNetTrainerNoMirroring):
    """As `nnUNetTrainerVoCo_adamw`, without mirroring."""
