"""The SwinUNETR trainers in other lengths; the warm-up keeps its share where epochs allow it."""

from nnunetv2_voco.trainers.swin import nnUNetTrainerVoCoSwin_B, nnUNetTrainerVoCoSwin_H, nnUNetTrainerVoCoSwin_L


class nnUNetTrainerVoCoSwin_B_150ep(nnUNetTrainerVoCoSwin_B):
    """As `nnUNetTrainerVoCoSwin_B`, 150 epochs."""

    length_epochs = 150
    warmup_epochs = 3


class nnUNetTrainerVoCoSwin_B_5ep(nnUNetTrainerVoCoSwin_B):
    """As `nnUNetTrainerVoCoSwin_B`, 5 epochs, to try out that everything works."""

    length_epochs = 5
    warmup_epochs = 1


class nnUNetTrainerVoCoSwin_L_150ep(nnUNetTrainerVoCoSwin_L):
    """As `nnUNetTrainerVoCoSwin_L`, 150 epochs."""

    length_epochs = 150
    warmup_epochs = 3


class nnUNetTrainerVoCoSwin_L_5ep(nnUNetTrainerVoCoSwin_L):
    """As `nnUNetTrainerVoCoSwin_L`, 5 epochs, to try out that everything works."""

    length_epochs = 5
    warmup_epochs = 1


class nnUNetTrainerVoCoSwin_H_150ep(nnUNetTrainerVoCoSwin_H):
    """As `nnUNetTrainerVoCoSwin_H`, 150 epochs."""

    length_epochs = 150
    warmup_epochs = 3


class nnUNetTrainerVoCoSwin_H_5ep(nnUNetTrainerVoCoSwin_H):
    """As `nnUNetTrainerVoCoSwin_H`, 5 epochs, to try out that everything works."""

    length_epochs = 5
    warmup_epochs = 1
