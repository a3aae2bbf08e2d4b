from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_voco.registration import discovery_folder
from tests.nnunetv2_voco.planned_dataset import NAME, make_dataset, write_cases, write_checkpoint


@pytest.fixture
def preprocessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = make_dataset(tmp_path, monkeypatch)
    write_cases(folder)
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "voco_encoder.pth")


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., nnUNetTrainer]:
    """As nnUNetv2_train does, but with two steps an epoch unless the plans say how many."""
    monkeypatch.setenv("nnUNet_extTrainer", discovery_folder())

    def start(
        name: str = "nnUNetTrainerVoCo", *, c: bool = False, val: bool = False, configuration: str = "3d_fullres"
    ) -> nnUNetTrainer:
        torch.manual_seed(0)
        trainer = get_trainer_from_args(NAME, configuration, 0, name, "nnUNetPlans", c, torch.device("cpu"))
        if trainer.num_iterations_per_epoch == 250:  # nnU-Net's own
            trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 2, 1
        monkeypatch.setattr(trainer.logger, "plot_progress_png", lambda folder: None)  # takes longer than an epoch
        maybe_load_checkpoint(trainer, c, val)
        return trainer

    return start


def run_until(trainer: nnUNetTrainer, epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train as if the job were killed when `epoch` starts."""
    stock = trainer.on_epoch_start

    def on_epoch_start() -> None:
        if trainer.current_epoch == epoch:
            raise KeyboardInterrupt
        stock()

    monkeypatch.setattr(trainer, "on_epoch_start", on_epoch_start)
    trainer.save_every = 1
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint of this package."""
    return torch.load(path, weights_only=True)["network_weights"]
