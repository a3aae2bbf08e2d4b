"""AdamW in place of SGD: converges in fewer steps."""

from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam

from nnunetv2_voco.trainers.nnUNetTrainerVoCo import nnUNetTrainerVoCo


class nnUNetTrainerVoCo_adamw(nnUNetTrainerVoCo, nnUNetTrainerAdam):
    """AdamW from 1e-3 with nnU-Net's polynomial decay, as nnU-Net's own `nnUNetTrainerAdam1en3`.

    For trainings of a few thousand steps and less, in which SGD with momentum 0.99 hardly begins.
    """

    peak_lr = 1e-3


class nnUNetTrainerVoCo_adamw_150ep(nnUNetTrainerVoCo_adamw):
    """As `nnUNetTrainerVoCo_adamw`, 150 epochs."""

    length_epochs = 150


class nnUNetTrainerVoCo_adamw_5ep(nnUNetTrainerVoCo_adamw):
    """As `nnUNetTrainerVoCo_adamw`, 5 epochs, to try out that everything works."""

    length_epochs = 5
