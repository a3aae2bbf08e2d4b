"""The trainer that all others of this package derive from."""

import io
import json
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_voco.atomic import write_atomically, write_json
from nnunetv2_voco.checkpoint import Checkpoint
from nnunetv2_voco.classes import output_classes
from nnunetv2_voco.foreign import ForeignCheckpoint, local_file
from nnunetv2_voco.mismatch import with_mismatches
from nnunetv2_voco.report import TransferReport
from nnunetv2_voco.source import WeightSource, digest, weight_source
from nnunetv2_voco.trainers.experiment import Experiment, seed_everything
from nnunetv2_voco.transfer import MINIMUM_SHARE, load_encoder

TRANSFER_FILE = "voco_transfer.json"
"""File beside nnU-Net's logs: the weights that a training started from and the account of their transfer."""

CHECKPOINT_KEY = "nnunetv2_voco"
"""Key of nnU-Net's checkpoints under which the same is kept."""


class nnUNetTrainerVoCo(nnUNetTrainer):
    """nnU-Net's own training, started from pre-trained encoder weights.

    Schedule: nnU-Net's (1000 epochs, learning rate 1e-2, polynomial decay), the best for VoCo of those compared in
    OpenMind (arXiv 2412.17041). Network, patch size, batch size, augmentation and loss are nnU-Net's, too.

    The weights are read when a new training starts, never when one is continued, validated or used for prediction.
    Plans may lay down cases, seed and length; see `nnunetv2_voco.trainers.experiment`.

    Attributes:
        length_epochs: Number of epochs.
        peak_lr: Highest learning rate.
        minimum_share: Share of the encoder's parameters that must come from the checkpoint.
        from_scratch: Whether to load no weights at all.
        saved_trainer_name: The trainer that models name, which nnU-Net looks up to predict: its own, as the networks
            are its own, so that an nnU-Net without this package can predict. None stands for this class.
    """

    length_epochs = 1000
    peak_lr = 1e-2
    minimum_share = MINIMUM_SHARE
    from_scratch = False
    saved_trainer_name: str | None = nnUNetTrainer.__name__

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008  nnU-Net reads this signature
    ) -> None:
        self.experiment = Experiment.from_plans(plans)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr = self.experiment.initial_lr or self.peak_lr
        self.num_epochs = self.experiment.epochs or self.length_epochs
        self.num_iterations_per_epoch = self.experiment.iterations_per_epoch or self.num_iterations_per_epoch
        self.num_val_iterations_per_epoch = (
            self.experiment.val_iterations_per_epoch or self.num_val_iterations_per_epoch
        )
        self.from_scratch = self.from_scratch or self.experiment.from_scratch

    def phase(self, epochs: int) -> int:
        """Return the length of a phase of the schedule, which keeps its share where the plans change the length."""
        return self.experiment.scaled(epochs, schedule_epochs=self.length_epochs)

    def initialize(self) -> None:
        """Seed, if the plans name a seed, before the network is initialised."""
        self._seed(0, self.experiment.initial_draw)
        super().initialize()

    def do_split(self) -> tuple[list[str], list[str]]:
        """Take the cases that the plans name in place of nnU-Net's.

        Raises:
            ValueError: If they are not there or overlap.
        """
        if self.dataset_class is None:
            self.dataset_class = infer_dataset_class(self.preprocessed_dataset_folder)
        stock = ([], []) if self.experiment.names_all_cases else super().do_split()
        available = self.dataset_class.get_identifiers(self.preprocessed_dataset_folder)
        training, validation = self.experiment.split(stock, available)
        if (training, validation) != stock:
            self.print_to_log_file(f"The plans name {len(training)} training and {len(validation)} validation cases.")
        return training, validation

    def on_train_start(self) -> None:
        """Load the weights if this training is new, before any data is read."""
        if self.current_epoch == 0:
            if self.from_scratch:
                self.print_to_log_file("Training from scratch: no pre-trained weights are loaded.")
                (Path(self.output_folder) / TRANSFER_FILE).unlink(missing_ok=True)
            else:
                self.load_initial_weights()
        super().on_train_start()

    def on_epoch_start(self) -> None:
        """Seed, if the plans name a seed, so that the batches of an epoch depend on nothing that came before."""
        self._seed(1, self.current_epoch, self.local_rank)
        super().on_epoch_start()

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

    def transfer(self, checkpoint: Checkpoint | ForeignCheckpoint, source: WeightSource) -> TransferReport:
        """Fill the network from the checkpoint, as `source` says."""
        report = load_encoder(
            self.network,
            checkpoint,
            num_label_channels=len(self.label_manager.foreground_labels) if self.is_cascaded else 0,
            decoder=source.decoder,
            classes=output_classes(self.dataset_json["labels"]),
            across_families=source.across_families,
            minimum_share=0 if source.insist else self.minimum_share,
        )
        return with_mismatches(report, checkpoint, self.plans_manager.plans, self.configuration_name)

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

    def _seed(self, *numbers: int) -> None:
        if self.experiment.seed is not None:
            seed_everything(self.experiment.seed, *numbers)

    def _transfer_record(self) -> dict[str, Any]:
        file = Path(self.output_folder) / TRANSFER_FILE
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
