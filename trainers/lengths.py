"""The stock schedule in other lengths."""

from nnunetv2_voco.trainers.nnUNetTrainerVoCo import nnUNetTrainerVoCo


class nnUNetTrainerVoCo_150ep(nnUNetTrainerVoCo):
    """150 epochs, the length at which OpenMind (arXiv 2412.17041) compares pre-training methods."""

    length_epochs = 150


class nnUNetTrainerVoCo_5ep(nnUNetTrainerVoCo):
    """5 epochs, to try out that everything works."""

    length_epochs = 5
