"""Sawtooth: first the decoder alone, then everything, each with a warm-up."""

from nnunetv2_voco.trainers.nnUNetTrainerVoCo import nnUNetTrainerVoCo
from nnunetv2_voco.trainers.optimizer_groups import part_decoder_and_encoder
from nnunetv2_voco.trainers.schedule import EpochLRScheduler, sawtooth_lr


class nnUNetTrainerVoCo_sawtooth(nnUNetTrainerVoCo):
    """50 epochs for the decoder (25 warm-up, 25 decay), then 50 of warm-up for all and decay; peak 1e-3.

    The best schedule on average in OpenMind (arXiv 2412.17041). There the second warm-up ends at half the peak; here it
    reaches it. Encoder and decoder stay in one optimiser whose encoder rate is zero in the first phase, so that
    a training continues, alone or on several GPUs, in any phase.

    Attributes:
        decoder_epochs: Length of the first phase.
        warmup_epochs: Length of the warm-up of the second.
    """

    peak_lr = 1e-3
    decoder_epochs = 50
    warmup_epochs = 50

    def configure_optimizers(self) -> tuple:
        """Split nnU-Net's optimiser into decoder and encoder; replace the schedule.

        Raises:
            ValueError: If the plans shorten the training so much that the encoder is never trained.
        """
        decoder, warmup = self.phase(self.decoder_epochs), self.phase(self.warmup_epochs)
        if decoder >= self.num_epochs:
            raise ValueError(f"epochs {self.num_epochs}: {type(self).__name__} needs at least {decoder + 1}")
        optimizer, _ = super().configure_optimizers()
        part_decoder_and_encoder(optimizer, self.network)

        def rates(epoch: int) -> tuple[float, float]:
            return sawtooth_lr(
                epoch,
                peak=self.initial_lr,
                decoder=decoder,
                warmup=warmup,
                total=self.num_epochs,
            )

        return optimizer, EpochLRScheduler(optimizer, rates)


class nnUNetTrainerVoCo_sawtooth_150ep(nnUNetTrainerVoCo_sawtooth):
    """15 epochs for the decoder and 15 of warm-up in 150, OpenMind's short form."""

    length_epochs = 150
    decoder_epochs = 15
    warmup_epochs = 15


class nnUNetTrainerVoCo_sawtooth_5ep(nnUNetTrainerVoCo_sawtooth):
    """2 epochs for the decoder and 1 of warm-up in 5, to try out that everything works."""

    length_epochs = 5
    decoder_epochs = 2
    warmup_epochs = 1
