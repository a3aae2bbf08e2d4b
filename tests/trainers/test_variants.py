import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nnunetv2_voco.discovery import voco_trainers
from nnunetv2_voco.encoder import plain_architecture
from nnunetv2_voco.trainers.nnUNetTrainerVoCo import nnUNetTrainerVoCo
from nnunetv2_voco.trainers.prior import PRIOR
from nnunetv2_voco.transfer import TransferError, encoder_tensors
from tests.nnunetv2_voco.planned_dataset import write_checkpoint
from tests.trainers.conftest import run_until, weights_of

pytestmark = [
    # nnU-Net hands arrays of memory-mapped files to torch
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
    # nnU-Net steps its schedule before the first epoch
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning"),
]

NAMES = voco_trainers.__all__


def test_every_schedule_comes_in_three_lengths() -> None:
    lengths = {name: getattr(voco_trainers, name).length_epochs for name in NAMES}
    plain = ("", "_warmup", "_sawtooth", "_frozen", "_adamw", "_gentle", "_prior", "_prior_gentle", "_nomirroring")
    for family in plain:
        assert [lengths[f"nnUNetTrainerVoCo{family}{suffix}"] for suffix in ("", "_150ep", "_5ep")] == [1000, 150, 5]
    for family in ("Scratch", *(f"Swin{kind}_{size}" for kind in ("", "Scratch") for size in "BLH")):
        assert [lengths[f"nnUNetTrainerVoCo{family}{suffix}"] for suffix in ("", "_150ep", "_5ep")] == [1000, 150, 5]


@pytest.mark.parametrize("killed_at", [1, 2, 3, 4])
def test_sawtooth_continues_in_any_phase_and_its_first_tooth_leaves_the_encoder_alone(
    killed_at: int, preprocessed: Path, checkpoint: Path, start: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(checkpoint))
    pretrained = weights_of(checkpoint)
    killed = start("nnUNetTrainerVoCo_sawtooth_5ep")
    run_until(killed, killed_at, monkeypatch)
    as_pretrained = [torch.equal(t, pretrained[name]) for name, t in encoder_tensors(killed.network).items()]
    assert all(as_pretrained) == (killed_at <= 2)
    continued = start("nnUNetTrainerVoCo_sawtooth_5ep", c=True)
    continued.lr_scheduler.step(killed_at)
    rates = [group["lr"] for group in continued.optimizer.param_groups]
    assert (rates[1] == 0) == (killed_at < 2)
    continued.run_training()
    assert not any(
        torch.equal(t, pretrained[name]) for name, t in encoder_tensors(continued.network).items() if "weight" in name
    )


def test_frozen_encoder_stays_as_it_was_and_the_decoder_learns(
    preprocessed: Path, checkpoint: Path, start: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(checkpoint))
    trainer = start("nnUNetTrainerVoCo_frozen_5ep")
    trainer.num_epochs = 2
    trainer.on_train_start()
    before = trainer.network.decoder.seg_layers[-1].weight.clone()
    trainer.run_training()
    assert all(torch.equal(t, weights_of(checkpoint)[name]) for name, t in encoder_tensors(trainer.network).items())
    assert not torch.equal(trainer.network.decoder.seg_layers[-1].weight, before)


def test_every_class_but_the_background_starts_with_the_same_small_probability(
    preprocessed: Path, checkpoint: Path, start: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(checkpoint))
    trainer = start("nnUNetTrainerVoCo_prior_5ep")
    trainer.on_train_start()
    for layer in trainer.network.decoder.seg_layers:
        torch.testing.assert_close(layer.bias.softmax(0), torch.tensor([1 - 2 * PRIOR, PRIOR, PRIOR]))
    before = trainer.network.decoder.seg_layers[-1].bias.clone()
    trainer.num_epochs = 1
    trainer.run_training()
    trained = [layer.bias.clone() for layer in trainer.network.decoder.seg_layers]
    assert not torch.equal(trained[-1], before)
    continued = start("nnUNetTrainerVoCo_prior_5ep", val=True)
    for layer, bias in zip(continued.network.decoder.seg_layers, trained, strict=True):
        assert torch.equal(layer.bias, bias)


@pytest.mark.parametrize("family", ["prior", "prior_gentle"])
def test_regions_start_with_the_same_small_probability_each(family: str, preprocessed: Path, start: Callable) -> None:
    described = json.loads((preprocessed / "dataset.json").read_text())
    described |= {"labels": {"background": 0, "whole": [1, 2], "tumour": 2}, "regions_class_order": [1, 2]}
    (preprocessed / "dataset.json").write_text(json.dumps(described))
    trainer = start(f"nnUNetTrainerVoCo_{family}_5ep")
    trainer.initialize()
    for layer in trainer.network.decoder.seg_layers:
        torch.testing.assert_close(layer.bias.sigmoid(), torch.full((2,), PRIOR))


def test_adamw_variant_optimises_with_adamw_from_its_own_rate(
    checkpoint: Path, preprocessed: Path, start: Callable
) -> None:
    trainer = start("nnUNetTrainerVoCo_adamw_5ep")
    trainer.initialize()
    assert type(trainer.optimizer) is torch.optim.AdamW
    assert trainer.optimizer.param_groups[0]["lr"] == 1e-3
    trainer.lr_scheduler.step(4)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * (1 - 4 / 5) ** 0.9)


@pytest.mark.parametrize(("family", "slow"), [("gentle", 1 / 10), ("prior_gentle", 1 / 3)])
def test_gentle_encoder_learns_at_a_share_of_the_rate_unless_it_starts_from_scratch(
    family: str, slow: float, checkpoint: Path, preprocessed: Path, start: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for from_scratch, share in ((False, slow), (True, 1.0)):
        monkeypatch.setattr(nnUNetTrainerVoCo, "from_scratch", from_scratch)
        trainer = start(f"nnUNetTrainerVoCo_{family}_5ep")
        trainer.initialize()
        decoder, encoder = trainer.optimizer.param_groups
        tensors = {id(tensor) for tensor in encoder_tensors(trainer.network).values()}
        assert {id(parameter) for parameter in encoder["params"]} == tensors
        assert len(decoder["params"]) + len(encoder["params"]) == len(list(trainer.network.parameters()))
        trainer.lr_scheduler.step(4)
        assert decoder["lr"] == pytest.approx(1e-3 * (1 - 4 / 5) ** 0.9)
        assert encoder["lr"] == pytest.approx(share * decoder["lr"])


@pytest.mark.parametrize(
    "name",
    [
        "nnUNetTrainerVoCo_nomirroring",
        "nnUNetTrainerVoCo_adamw_nomirroring",
        "nnUNetTrainerVoCo_gentle_nomirroring",
        "nnUNetTrainerVoCo_prior_nomirroring",
        "nnUNetTrainerVoCo_prior_gentle_nomirroring",
    ],
)
def test_variants_without_mirroring_mirror_neither_in_training_nor_in_prediction(
    name: str, preprocessed: Path, start: Callable
) -> None:
    for variant, axes in ((name, None), ("nnUNetTrainerVoCo", (0, 1, 2))):
        trainer = start(variant)
        assert trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[3] == axes
        assert trainer.inference_allowed_mirroring_axes == axes


def test_frozen_encoder_must_be_covered_wholly(
    preprocessed: Path, checkpoint: Path, start: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(checkpoint, plain_architecture((4, 8)))
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(checkpoint))
    monkeypatch.setattr(nnUNetTrainerVoCo, "minimum_share", 0.3)
    start("nnUNetTrainerVoCo").load_initial_weights()
    with pytest.raises(TransferError, match="at least 100% are expected"):
        start("nnUNetTrainerVoCo_frozen").load_initial_weights()
