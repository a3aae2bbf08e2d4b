"""The fair twins of the SwinUNETR trainers: the same networks and schedules without weights."""

from nnunetv2_voco.trainers.scratch import nnUNetTrainerVoCoScratch
from nnunetv2_voco.trainers.swin import nnUNetTrainerVoCoSwin_B, nnUNetTrainerVoCoSwin_H, nnUNetTrainerVoCoSwin_L
from nnunetv2_voco.trainers.swin_lengths import (
    nnUNetTrainerVoCoSwin_B_5ep,
    nnUNetTrainerVoCoSwin_B_150ep,
    nnUNetTrainerVoCoSwin_H_5ep,
    nnUNetTrainerVoCoSwin_H_150ep,
    nnUNetTrainerVoCoSwin_L_5ep,
    nnUNetTrainerVoCoSwin_L_150ep,
)


class nnUNetTrainerVoCoSwinScratch_B(nnUNetTrainerVoCoScratch, nnUNetTrainerVoCoSwin_B):
    """As `nnUNetTrainerVoCoSwin_B`, from random weights."""


class nnUNetTrainerVoCoSwinScratch_B_150ep(nnUNetTrainerVoCoScratch, nnUNetTrainerVoCoSwin_B_150ep):
    """As `nnUNetTrainerVoCoSwin_B_150ep`, from random weights."""


class nnUNetTrainerVoCoSwinScratch_B_5ep(nnUNetTrainerVoCoScratch, nnUNetTrainerVoCoSwin_B_5ep):
    """As `nnUNetTrainerVoCoSwin_B_5ep`, from random weights."""


class nnUNetTrainerVoCoSwinScratch_L(nnUNetTrainerVoCoScratch, nnUNetTrainerVoCoSwin_L):
    """As `nnUNetTrainerVoCoSwin_L`, from random weights."""


class nnUNetTrainerVoCoSwinScratch_L_150ep(nnUNetTrainerVoCoScratch, nnUNetTrainerVoCoSwin_L_150ep):
    """As `nnUNetTrainerVoCoSwin_L_150ep`, from random weights."""


class nnUNetTrainerVoCoSwinScratch_L_5ep(nnUNetTrainerVoCoScratch, nnUNetTrainerVoCoSwin_L_5ep):
    """As `nnUNetTrainerVoCoSwin_L_5ep`, from random weights."""


class nnUNetTrainerVoCoSwinScratch_H(nnUNetTrainerVoCoScratch, nnUNetTrainerVoCoSwin_H):
    """As `nnUNetTrainerVoCoSwin_H`, from random weights."""


class nnUNetTrainerVoCoSwinScratch_H_150ep(nnUNetTrainerVoCoScratch, nnUNetTrainerVoCoSwin_H_150ep):
    """As `nnUNetTrainerVoCoSwin_H_150ep`, from random weights."""


class nnUNetTrainerVoCoSwinScratch_H_5ep(nnUNetTrainerVoCoScratch, nnUNetTrainerVoCoSwin_H_5ep):
    """As `nnUNetTrainerVoCoSwin_H_5ep`, from random weights."""
