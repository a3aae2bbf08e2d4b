"""`-num_gpus 2`, as nnU-Net runs it, but with two processes on the CPU."""

from pathlib import Path

import nnunetv2.training.nnUNetTrainer.nnUNetTrainer as nnunet
import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_voco.registration import discovery_folder
from nnunetv2_voco.transfer import unwrap
from tests.nnunetv2_voco.planned_dataset import NAME, plans, write_plans

pytestmark = pytest.mark.slow


def train(rank: int, name: str, folder: str, continued: bool) -> None:
    """What nnU-Net's `run_ddp` does on each GPU, with gloo in place of NCCL."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store_{continued}", rank=rank, world_size=2
    )
    nnunet.DDP = lambda network, device_ids: DistributedDataParallel(network)  # device_ids are for GPUs
    trainer = get_trainer_from_args(NAME, "3d_fullres", 0, name, "nnUNetPlans", continued)
    trainer.device, trainer.grad_scaler = torch.device("cpu"), None
    trainer.logger.plot_progress_png = lambda folder: None
    maybe_load_checkpoint(trainer, continued, False)
    assert isinstance(trainer.network, DistributedDataParallel) or not continued
    if not continued:
        trainer.on_train_start()
        torch.save(unwrap(trainer.network).state_dict(), f"{folder}/start_{rank}.pth")
        trainer.save_every = 1
        trainer.num_epochs, whole = 1, trainer.num_epochs  # killed after an epoch, before the end is written
        trainer.on_train_end = lambda: None
        trainer.run_training()
        assert whole == 2
    else:
        assert trainer.current_epoch == 1
        trainer.run_training()
        torch.save(unwrap(trainer.network).state_dict(), f"{folder}/end_{rank}.pth")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", ["nnUNetTrainerVoCo_5ep", "nnUNetTrainerVoCo_frozen_5ep"])
def test_two_processes_start_from_the_same_weights_stay_together_and_continue(
    name: str, preprocessed: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(checkpoint))
    monkeypatch.setenv("nnUNet_extTrainer", discovery_folder())
    lengths = {"epochs": 2, "iterations_per_epoch": 2, "val_iterations_per_epoch": 1, "seed": 0}
    write_plans(preprocessed, plans() | {"nnunetv2_voco_experiment": lengths})
    weights = torch.load(checkpoint, weights_only=True)["network_weights"]

    torch.multiprocessing.spawn(train, args=(name, str(tmp_path), False), nprocs=2)
    checkpoint.unlink()
    torch.multiprocessing.spawn(train, args=(name, str(tmp_path), True), nprocs=2)

    for moment in ("start", "end"):
        first, second = (torch.load(tmp_path / f"{moment}_{rank}.pth", weights_only=True) for rank in (0, 1))
        assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())
        unchanged = all(torch.equal(first[key], tensor) for key, tensor in weights.items())
        assert unchanged == (moment == "start" or "frozen" in name)
    results = next((tmp_path / "nnUNet_results" / NAME).glob("*/fold_0"))
    saved = torch.load(results / "checkpoint_final.pth", weights_only=False)
    assert saved["nnunetv2_voco"]["transfer"]["share"] == 1
    assert not any(key.startswith("module.") for key in saved["network_weights"])
