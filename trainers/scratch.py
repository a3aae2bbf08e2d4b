"""The fair twin: the same trainer without weights."""

from nnunetv2_voco.trainers.nnUNetTrainerVoCo import nnUNetTrainerVoCo


class nnUNetTrainerVoCoScratch(nnUNetTrainerVoCo):
    """As `nnUNetTrainerVoCo`, from random weights; with plans of `voco_plan`, too, whose checkpoint it ignores."""

    from_scratch = True


class nnUNetTrainerVoCoScratch_150ep(nnUNetTrainerVoCoScratch):
    """As `nnUNetTrainerVoCo_150ep`, from random weights."""

    length_epochs = 150


class nnUNetTrainerVoCoScratch_5ep(nnUNetTrainerVoCoScratch):
    """As `nnUNetTrainerVoCo_5ep`, from random weights."""

    length_epochs = 5
