"""The fair twin: the same trainer without weights."""

from nnunetv2_voco.trainers.nnUNetTrainerVoCo import nnUNetTrainerVoCo


class nnUNetTrainerVoCoScratch(nnUNetTrainerVoCo):
    """As `nnUNetTrainerVoCo`, from random weights; with plans of `voco_plan`, too, whose checkpoint it ignores."""

    def load_initial_weights(self) -> None:
        """Leave the network as nnU-Net initialised it."""
        self.print_to_log_file("Training from scratch: no pre-trained weights are loaded.")


class nnUNetTrainerVoCoScratch_150ep(nnUNetTrainerVoCoScratch):
    """As `nnUNetTrainerVoCo_150ep`, from random weights."""

    length_epochs = 150


class nnUNetTrainerVoCoScratch_5ep(nnUNetTrainerVoCoScratch):
    """As `nnUNetTrainerVoCo_5ep`, from random weights."""

    length_epochs = 5
