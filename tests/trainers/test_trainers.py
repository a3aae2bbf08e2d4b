import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunetv2_voco.checkpoint import Checkpoint, CheckpointError, save_checkpoint
from nnunetv2_voco.discovery import voco_trainers
from nnunetv2_voco.encoder import Architecture, plain_architecture
from nnunetv2_voco.registration import discovery_folder
from nnunetv2_voco.source import NoWeightsNamed
from nnunetv2_voco.transfer import TransferError, encoder_tensors
from tests.nnunetv2_voco.planned_dataset import plans, write_checkpoint, write_plans
from tests.trainers.conftest import run_until, weights_of

pytestmark = [
    # nnU-Net hands arrays of memory-mapped files to torch
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
    # nnU-Net steps its schedule before the first epoch
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning"),
]

NAMES = voco_trainers.__all__
STOCK_NETWORKS = [name for name in NAMES if "Swin" not in name]


@pytest.mark.parametrize("name", NAMES)
def test_nnunet_finds_each_trainer_as_the_packaged_class(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", discovery_folder())
    found = recursive_find_trainer_class_by_name(name)
    assert found is getattr(voco_trainers, name)
    assert found.__module__.startswith("nnunetv2_voco.trainers.")


@pytest.mark.parametrize("name", STOCK_NETWORKS)
def test_networks_are_the_stock_ones(name: str) -> None:
    assert getattr(voco_trainers, name).build_network_architecture is nnUNetTrainer.build_network_architecture


@pytest.mark.parametrize("name", STOCK_NETWORKS)
def test_models_with_stock_networks_name_the_stock_trainer(name: str) -> None:
    assert getattr(voco_trainers, name).saved_trainer_name == "nnUNetTrainer"


def test_new_training_starts_from_the_weights_in_the_variable(
    preprocessed: Path, checkpoint: Path, start: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(checkpoint))
    trainer = start()
    trainer.on_train_start()
    for name, tensor in encoder_tensors(trainer.network).items():
        assert torch.equal(tensor, weights_of(checkpoint)[name])
    assert "(100.0%) come from the checkpoint" in Path(trainer.log_file).read_text()
    record = json.loads((Path(trainer.output_folder) / "voco_transfer.json").read_text())
    assert record["checkpoint"] == str(checkpoint)
    assert record["transfer"]["share"] == 1
    assert "spacing 1 × 1 × 1 mm in the plan, 1.5 × 1 × 1 mm in pre-training" in record["transfer"]["notes"]


def test_planned_patch_batch_and_deep_supervision_are_untouched(
    preprocessed: Path, checkpoint: Path, start: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(checkpoint))
    ours, stock = start(), start("nnUNetTrainer")
    for trainer in (ours, stock):
        trainer.on_train_start()
    assert ours.enable_deep_supervision
    assert ours.network.decoder.deep_supervision
    for attribute in ("batch_size", "initial_lr", "weight_decay", "num_epochs", "oversample_foreground_percent"):
        assert getattr(ours, attribute) == getattr(stock, attribute)
    assert ours.configuration_manager.patch_size == stock.configuration_manager.patch_size
    assert str(ours.network) == str(stock.network)
    assert str(ours.optimizer) == str(stock.optimizer)


def test_twin_from_scratch_reads_no_weights(preprocessed: Path, start: Callable) -> None:
    trainer = start("nnUNetTrainerVoCoScratch")
    trainer.on_train_start()
    assert not (Path(trainer.output_folder) / "voco_transfer.json").exists()


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, NoWeightsNamed, "voco_plan(.|\n)*nnUNet_voco_checkpoint"),
        ("missing", FileNotFoundError, "no such file"),
        ("damaged", CheckpointError, "cannot be read|is damaged"),
        ("unknown", CheckpointError, "unknown format"),
        ("newer", CheckpointError, "format version 99"),
        ("too small", TransferError, "at least 50% are expected"),
    ],
)
def test_bad_weights_are_an_error_before_any_data_is_read(
    content: str | None,
    error: type[Exception],
    message: str,
    preprocessed: Path,
    checkpoint: Path,
    start: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if content is not None:
        monkeypatch.setenv("nnUNet_voco_checkpoint", str(checkpoint))
    if content == "missing":
        checkpoint.unlink()
    elif content == "damaged":
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    elif content == "unknown":
        torch.save({"epoch": 3}, checkpoint)
    elif content == "newer":
        torch.save(torch.load(checkpoint, weights_only=True) | {"format_version": 99}, checkpoint)
    elif content == "too small":
        write_checkpoint(checkpoint, plain_architecture((1, 2, 2)))
    trainer = start()
    monkeypatch.setattr(trainer, "get_dataloaders", lambda: pytest.fail("data was read"))
    with pytest.raises(error, match=message):
        trainer.run_training()


def test_insisting_lets_a_small_share_pass(
    preprocessed: Path, checkpoint: Path, start: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(checkpoint, plain_architecture((1, 2, 2)))
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(checkpoint))
    monkeypatch.setenv("nnUNet_voco_insist", "1")
    start().on_train_start()


def test_2d_configuration_is_refused(
    preprocessed: Path, checkpoint: Path, start: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(checkpoint))
    with pytest.raises(TransferError, match="2D network, the weights are 3D"):
        start(configuration="2d").run_training()


def test_second_stage_of_a_cascade_takes_the_weights_and_ignores_the_labels_at_first(
    preprocessed: Path, checkpoint: Path, start: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(checkpoint))
    trainer = start(configuration="3d_cascade_fullres")
    trainer.load_initial_weights()
    first = encoder_tensors(trainer.network)["encoder.stages.0.0.convs.0.conv.weight"]
    assert first.shape[1] == 3
    assert torch.equal(first[:, :1], weights_of(checkpoint)["encoder.stages.0.0.convs.0.conv.weight"])
    assert not first[:, 1:].any()


def test_saved_under_the_stock_name_with_ours_beside(
    preprocessed: Path, checkpoint: Path, start: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(checkpoint))
    trainer = start("nnUNetTrainerVoCo_5ep")
    trainer.num_epochs = 1
    trainer.run_training()
    saved = torch.load(Path(trainer.output_folder) / "checkpoint_final.pth", weights_only=False)
    assert saved["trainer_name"] == "nnUNetTrainer"
    assert saved["nnunetv2_voco"]["trainer_name"] == "nnUNetTrainerVoCo_5ep"
    assert saved["nnunetv2_voco"]["transfer"]["share"] == 1
    assert set(saved) == {
        "network_weights", "optimizer_state", "grad_scaler_state", "logging", "_best_ema", "current_epoch", "init_args",
        "trainer_name", "inference_allowed_mirroring_axes", "nnunetv2_voco",
    }  # fmt: skip
    assert sorted(file.name for file in Path(trainer.output_folder).glob("*checkpoint*")) == [
        "checkpoint_best.pth",
        "checkpoint_final.pth",
    ]


def test_disabled_checkpointing_writes_nothing(
    preprocessed: Path, checkpoint: Path, start: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(checkpoint))
    trainer = start()
    trainer.on_train_start()
    trainer.disable_checkpointing = True
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    assert not list(Path(trainer.output_folder).glob("*checkpoint*"))


@pytest.mark.parametrize(
    "name", ["nnUNetTrainerVoCo_5ep", "nnUNetTrainerVoCo_warmup_5ep", "nnUNetTrainerVoCo_frozen_5ep"]
)
def test_killed_training_continues_without_the_weights_it_started_from(
    name: str, preprocessed: Path, checkpoint: Path, start: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(checkpoint))
    whole = start(name)
    whole.run_training()
    rates = whole.logger.get_value("lrs", step=None)
    shutil.rmtree(whole.output_folder)
    killed = start(name)
    run_until(killed, 2, monkeypatch)
    checkpoint.unlink()
    continued = start(name, c=True)
    assert continued.current_epoch == 2
    for parameter, other in zip(continued.network.parameters(), killed.network.parameters(), strict=True):
        assert torch.equal(parameter, other)
    continued.run_training()
    assert continued.current_epoch == 5
    assert continued.logger.get_value("lrs", step=None) == rates
    saved = torch.load(Path(continued.output_folder) / "checkpoint_final.pth", weights_only=False)
    assert saved["nnunetv2_voco"]["checkpoint"] == str(checkpoint)


def test_validation_alone_takes_the_trained_network_and_reads_no_weights(
    preprocessed: Path, checkpoint: Path, start: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(checkpoint))
    trained = start("nnUNetTrainerVoCo_5ep")
    trained.num_epochs = 1
    trained.run_training()
    checkpoint.unlink()
    monkeypatch.delenv("nnUNet_voco_checkpoint")
    validated = start("nnUNetTrainerVoCo_5ep", val=True)
    for parameter, other in zip(validated.network.parameters(), trained.network.parameters(), strict=True):
        assert torch.equal(parameter, other)


def test_whole_network_comes_with_the_outputs_for_classes_of_the_same_name(
    preprocessed: Path, start: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = start()
    trainer.initialize()
    trained = {name: torch.full_like(tensor, 0.25) for name, tensor in trainer.network.state_dict().items()}
    for name, tensor in trained.items():
        if name.startswith("decoder.seg_layers."):
            tensor[:] = torch.arange(3.0).reshape(-1, *[1] * (tensor.ndim - 1))
    classes = {"classes": ["Tumour", "organ"]}  # in the other order
    architecture = Architecture.from_plans(trainer.configuration_manager.configuration["architecture"])
    file = tmp_path / "whole.pth"
    save_checkpoint(file, Checkpoint(weights=trained, architecture=architecture, pretraining=classes))
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(file))
    monkeypatch.setenv("nnUNet_voco_decoder", "1")
    trainer.on_train_start()
    for name, tensor in trainer.network.named_parameters():
        of_each_output = tensor.reshape(len(tensor), -1)[:, 0].tolist()
        assert of_each_output == ([0, 2, 1] if "seg_layers" in name else [0.25] * len(tensor))


def test_weights_in_the_plans_win_and_must_be_unchanged(
    preprocessed: Path, checkpoint: Path, start: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(tmp_path / "elsewhere.pth"))
    write_plans(preprocessed, plans() | {"nnunetv2_voco": {"checkpoint": str(checkpoint), "sha256": "0" * 64}})
    with pytest.raises(CheckpointError, match="has changed since the plans were written"):
        start().on_train_start()
    write_plans(preprocessed, plans() | {"nnunetv2_voco": {"checkpoint": str(checkpoint)}})
    start().on_train_start()
