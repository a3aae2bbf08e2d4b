"""Every kind of training that the stock trainer knows runs with ours, and on through its checkpoint."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch._dynamo import OptimizedModule

from nnunetv2_voco.discovery import voco_trainers
from nnunetv2_voco.encoder import Architecture
from nnunetv2_voco.transfer import encoder_tensors
from tests.nnunetv2_voco.networks import architecture
from tests.nnunetv2_voco.planned_dataset import plans, write_cases, write_checkpoint, write_plans
from tests.trainers.conftest import run_until

pytestmark = [
    # nnU-Net hands arrays of memory-mapped files to torch
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
    # nnU-Net steps its schedule before the first epoch
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning"),
]


@pytest.fixture
def train(
    preprocessed: Path, checkpoint: Path, start: Callable, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., nnUNetTrainer]:
    """Train for an epoch, be killed in the second, continue to the end without the checkpoint's file."""
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(checkpoint))

    def train(
        name: str = "nnUNetTrainerVoCo_5ep", configuration: str = "3d_fullres", *, epochs: int = 2
    ) -> nnUNetTrainer:
        monkeypatch.setattr(getattr(voco_trainers, name), "length_epochs", epochs)
        run_until(start(name, configuration=configuration), 1, monkeypatch)
        checkpoint.unlink()
        continued = start(name, configuration=configuration, c=True)
        assert continued.current_epoch == 1
        continued.run_training()
        losses = continued.logger.get_value("train_losses", step=None)
        assert len(losses) == epochs
        assert all(torch.isfinite(torch.tensor(losses)))
        return continued

    return train


def describe(preprocessed: Path, **changes: Any) -> None:
    file = preprocessed / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def small(family: str, n_stages: int, *, anisotropic: bool) -> Architecture:
    return architecture(
        family,
        n_stages=n_stages,
        features_per_stage=[4, *[8] * (n_stages - 1)],
        kernel_sizes=[[1 if anisotropic and stage < 2 else 3, 3, 3] for stage in range(n_stages)],
        strides=[[1, 1, 1], [1 if anisotropic else 2, 2, 2], *[[2, 2, 2]] * 2, *[[1, 1, 1]] * 3][:n_stages],
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "n_stages", "anisotropic", "channels"),
    [("plain", 4, True, 4), ("plain", 7, False, 1), ("residual", 5, True, 1), ("residual", 6, False, 4)],
)
def test_plans_of_all_kinds(
    family: str, n_stages: int, anisotropic: bool, channels: int, preprocessed: Path, checkpoint: Path, train: Callable
) -> None:
    write_checkpoint(checkpoint, small(family, 5, anisotropic=False))
    content = plans(small(family, n_stages, anisotropic=anisotropic))
    for configuration in content["configurations"].values():
        if "normalization_schemes" in configuration:
            configuration["normalization_schemes"] *= channels
            configuration["use_mask_for_norm"] *= channels
    write_plans(preprocessed, content)
    describe(preprocessed, channel_names={str(index): "CT" for index in range(channels)})
    write_cases(preprocessed, channels=channels)
    trainer = train()
    record = json.loads((Path(trainer.output_folder) / "voco_transfer.json").read_text())["transfer"]
    for stage, account in record["stages"].items():
        assert account["loaded"] == (account["parameters"] if stage not in ("stage 5", "stage 6") else 0)


def test_regions(preprocessed: Path, train: Callable) -> None:
    labels = {"background": 0, "whole": [1, 2], "tumour": 2}
    describe(preprocessed, labels=labels, regions_class_order=[1, 2])
    trainer = train()
    assert trainer.label_manager.has_regions
    assert trainer.network.decoder.seg_layers[-1].out_channels == 2


def test_ignore_label(preprocessed: Path, train: Callable) -> None:
    describe(preprocessed, labels={"background": 0, "organ": 1, "ignore": 2})
    write_cases(preprocessed, annotated=(-1, 0, 1))
    assert train().loss.loss.ce.ignore_index == 2


def test_low_resolution_and_then_the_cascade(preprocessed: Path, checkpoint: Path, train: Callable) -> None:
    weights = torch.load(checkpoint, weights_only=True)["network_weights"]["encoder.stages.0.0.convs.0.conv.weight"]
    low = train(configuration="3d_lowres")
    previous = Path(low.output_folder_base) / "predicted_next_stage" / "3d_cascade_fullres"
    previous.mkdir(parents=True)
    for case in (f"case_{index}" for index in range(5)):
        _, seg, _, _ = nnUNetDatasetBlosc2(str(preprocessed / "nnUNetPlans_3d_fullres")).load_case(case)
        nnUNetDatasetBlosc2.save_seg(seg[0], str(previous / case))
    write_checkpoint(checkpoint)
    cascade = train(configuration="3d_cascade_fullres")
    first = encoder_tensors(cascade.network)["encoder.stages.0.0.convs.0.conv.weight"]
    assert first.shape[1] == weights.shape[1] + 2
    assert first[:, 1:].any()  # training has made it look at the labels


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nnUNetTrainerVoCo_frozen_5ep", "nnUNetTrainerVoCo_sawtooth_5ep"])
# torch itself looks at the gradients of inner tensors when it traces
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiled_network(name: str, preprocessed: Path, train: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nnU-Net's switch for compilation, which leaves CPUs out, and without a C++ compiler."""
    monkeypatch.setattr(nnUNetTrainer, "_do_i_compile", lambda self: True)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    trainer = train(name, epochs=3)
    assert isinstance(trainer.network, OptimizedModule)
    saved = torch.load(Path(trainer.output_folder) / "checkpoint_final.pth", weights_only=False)
    assert not any("_orig_mod" in key for key in saved["network_weights"])
