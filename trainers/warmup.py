"""Warm-up: a slow start for the whole network."""

from nnunetv2_voco.trainers.nnUNetTrainerVoCo import nnUNetTrainerVoCo
from nnunetv2_voco.trainers.schedule import EpochLRScheduler, warmup_lr


class nnUNetTrainerVoCo_warmup(nnUNetTrainerVoCo):
    """50 epochs of linear warm-up to 1e-3, then polynomial decay, as in S3D (arXiv 2410.23132).

    Attributes:
        warmup_epochs: Length of the warm-up.
    """

    peak_lr = 1e-3
    warmup_epochs = 50

    def configure_optimizers(self) -> tuple:
        """Keep nnU-Net's optimiser; replace the schedule."""
        optimizer, _ = super().configure_optimizers()
        warmup = self.phase(self.warmup_epochs)

        def rates(epoch: int) -> list[float]:
            return [warmup_lr(epoch, peak=self.initial_lr, warmup=warmup, total=self.num_epochs)]

        return optimizer, EpochLRScheduler(optimizer, rates)


class nnUNetTrainerVoCo_warmup_150ep(nnUNetTrainerVoCo_warmup):
    """15 epochs of warm-up in 150: the share that OpenMind's short schedules give to each of their phases."""

    length_epochs = 150
    warmup_epochs = 15


class nnUNetTrainerVoCo_warmup_5ep(nnUNetTrainerVoCo_warmup):
    """2 epochs of warm-up in 5, to try out that everything works."""

    length_epochs = 5
    warmup_epochs = 2
