"""The trainer that all others of this package derive from."""

import io
import json
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_voco.atomic import write_atomically, write_json
from nnunetv2_voco.foreign import local_file
from nnunetv2_voco.report import TransferReport
from nnunetv2_voco.source import WeightSource, digest, weight_source
from nnunetv2_voco.transfer import MINIMUM_SHARE, Pretrained, load_encoder

TRANSFER_FILE = "voco_transfer.json"
"""File beside nnU-Net's logs: the weights that a training started from and the account of their transfer."""

CHECKPOINT_KEY = "nnunetv2_voco"
"""Key of nnU-Net's checkpoints under which the same is kept."""


class nnUNetTrainerVoCo(nnUNetTrainer):
    """nnU-Net's own training, started from pre-trained encoder weights.

    Schedule: nnU-Net's (1000 epochs, learning rate 1e-2, polynomial decay), the best for VoCo of those compared in
    OpenMind (arXiv 2412.17041). Network, patch size, batch size, augmentation and loss are nnU-Net's, too.

    The weights are read when a new training starts, never when one is continued, validated or used for prediction.

    Attributes:
        length_epochs: Number of epochs.
        peak_lr: Highest learning rate.
        minimum_share: Share of the encoder's parameters that must come from the checkpoint.
        saved_trainer_name: The trainer that models name, which nnU-Net looks up to predict: its own, as the networks
            are its own, so that an nnU-Net without this package can predict. None stands for this class.
    """

    length_epochs = 1000
    peak_lr = 1e-2
    minimum_share = MINIMUM_SHARE
    saved_trainer_name: str | None = nnUNetTrainer.__name__

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008  nnU-Net reads this signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = self.length_epochs
        self.initial_lr = self.peak_lr

    def on_train_start(self) -> None:
        """Load the weights if this training is new, before any data is read."""
        if self.current_epoch == 0:
            self.load_initial_weights()
        super().on_train_start()

    def load_initial_weights(self) -> None:
        """Fill the encoder from the checkpoint that the plans or the environment name, and log what was done.

        Raises:
            ValueError: If no checkpoint is named, it cannot be read, or does not fit the network.
            FileNotFoundError: If it is not there.
        """
        source = weight_source(self.plans_manager.plans)
        checkpoint = source.open()
        if not self.was_initialized:
            self.initialize()
        report = self.transfer(checkpoint, source)
        if self.local_rank == 0:
            self.print_to_log_file(f"{source.checkpoint}\n{report}", add_timestamp=False)
            sha256 = source.sha256 or digest(local_file(source.checkpoint))
            record = {**source.to_plans(), "sha256": sha256, "transfer": report.to_json()}
            write_json(Path(self.output_folder) / TRANSFER_FILE, record)

    def transfer(self, checkpoint: Pretrained, source: WeightSource) -> TransferReport:
        """Fill the network from the checkpoint, as `source` says."""
        return load_encoder(
            self.network,
            checkpoint,
            num_label_channels=len(self.label_manager.foreground_labels) if self.is_cascaded else 0,
            decoder=source.decoder,
            across_families=source.across_families,
            minimum_share=0 if source.insist else self.minimum_share,
        )

    def save_checkpoint(self, filename: str) -> None:
        """Save under the name of `saved_trainer_name`, with ours and the account of the transfer beside it."""
        buffer = io.BytesIO()
        super().save_checkpoint(buffer)
        if buffer.tell() == 0:  # another rank saves, or checkpointing is disabled
            return
        buffer.seek(0)
        checkpoint = torch.load(buffer, map_location="cpu", weights_only=False)  # what was written a moment ago
        checkpoint[CHECKPOINT_KEY] = {"trainer_name": checkpoint["trainer_name"], **self._transfer_record()}
        checkpoint["trainer_name"] = self.saved_trainer_name or type(self).__name__
        write_atomically(filename, lambda temporary: torch.save(checkpoint, temporary))

    def _transfer_record(self) -> dict[str, Any]:
        file = Path(self.output_folder) / TRANSFER_FILE
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
