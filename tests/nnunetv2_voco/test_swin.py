import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nnunetv2_voco.foreign import open_checkpoint
from nnunetv2_voco.inspection import main as inspect_main
from nnunetv2_voco.plan import main as plan_main
from nnunetv2_voco.swin import MonaiMissing, OnMeta, SwinForNNUNet, build_swin, swin_patch_size
from nnunetv2_voco.swin_files import FEATURE_SIZES, swin_names
from nnunetv2_voco.swin_intensity import PretrainedIntensities, Rule
from nnunetv2_voco.swin_weights import load_swin, match_swin
from nnunetv2_voco.transfer import TransferError, load_encoder
from tests.nnunetv2_voco.planned_dataset import plans, write_plans
from tests.nnunetv2_voco.swin_file import write_swin_file

CT = {"0": {"mean": 83.0, "std": 131.0, "percentile_00_5": -950.0, "percentile_99_5": 812.0}}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of MONAI's imports


@pytest.fixture
def monai() -> None:
    pytest.importorskip("monai", reason="MONAI is not installed (pip install 'nnunetv2_voco[swin]')")


def tiny_network(channels: int = 1, labels: int = 0) -> SwinForNNUNet:
    intensities = PretrainedIntensities([Rule(1.0, 0.0, "")] * (channels - labels), labels)
    return SwinForNNUNet(build_swin(num_input_channels=channels, num_output_channels=3, feature_size=12), intensities)


@pytest.mark.parametrize(
    ("planned", "rounded"),
    [
        ((96, 160, 160), (96, 160, 160)),
        ((28, 256, 224), (32, 256, 224)),
        ((80, 79, 112), (96, 64, 128)),
        ((8, 16, 16), (32, 64, 32)),
        ((40, 40, 40), (64, 32, 32)),
    ],
)
def test_patches_become_multiples_of_32_with_two_voxels_at_the_deepest_level(planned: tuple, rounded: tuple) -> None:
    assert swin_patch_size(planned) == rounded
    assert np.prod(np.array(rounded) // 32) >= 2


def test_2d_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="take a 3D configuration"):
        swin_patch_size((256, 256))


@pytest.mark.parametrize(("backward", "permuted"), [((0, 1, 2), (2, 1, 0)), ((1, 0, 2), (2, 0, 1))])
def test_network_sees_x_y_z_and_answers_in_the_order_of_the_plans(backward: tuple, permuted: tuple) -> None:
    class Recorder(nn.Module):
        def forward(self, data: torch.Tensor) -> torch.Tensor:
            self.seen = data
            return torch.cat((data, 2 * data), dim=1)

    recorder = Recorder()
    network = SwinForNNUNet(recorder, PretrainedIntensities([Rule(1.0, 0.0, "")]), backward)
    data = torch.rand(2, 1, 3, 4, 5)
    result = network(data)
    assert torch.equal(recorder.seen, data.permute(0, 1, *(2 + axis for axis in permuted)))
    assert torch.equal(result, torch.cat((data, 2 * data), dim=1))


def test_without_monai_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "monai"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "monai", None)
    with pytest.raises(MonaiMissing, match=r'pip install "nnunetv2_voco\[swin\]"'):
        build_swin(num_input_channels=1, num_output_channels=2, feature_size=12)


@pytest.mark.parametrize(("size", "encoder", "whole"), [("B", 53e6, 72e6), ("L", 206e6, 290e6), ("H", 818e6, 1.2e9)])
def test_networks_have_the_published_numbers_of_parameters(
    monai: None, size: str, encoder: float, whole: float
) -> None:
    with torch.device("meta"), OnMeta():
        network = build_swin(num_input_channels=1, num_output_channels=21, feature_size=FEATURE_SIZES[size])
    counts = {name: parameter.numel() for name, parameter in network.named_parameters()}
    assert sum(counts.values()) == pytest.approx(whole, rel=0.04)
    in_encoder = sum(count for name, count in counts.items() if not name.startswith(("decoder", "out.")))
    assert in_encoder == pytest.approx(encoder, rel=0.04)


@pytest.mark.parametrize("ssl", [True, False])
def test_every_tensor_of_the_file_lands_where_monai_has_it(monai: None, tmp_path: Path, ssl: bool) -> None:
    published = write_swin_file(tmp_path / "file.pt", ssl=ssl)
    network = tiny_network()
    before = {name: tensor.clone() for name, tensor in network.network.state_dict().items()}
    report = load_swin(network, open_checkpoint(tmp_path / "file.pt"))
    assert report.share == 1
    assert bool(report.decoder) == (not ssl)
    for name, tensor in network.network.state_dict().items():
        from_file = name in published and not name.startswith("out.")
        assert torch.equal(tensor, published[name] if from_file else before[name])
    unused = {name.split(".")[0] for name in report.unused}
    assert unused == ({"student", "teacher"} if ssl else {"out"})


def test_more_image_channels_share_the_weight_and_labels_start_at_zero(monai: None, tmp_path: Path) -> None:
    published = write_swin_file(tmp_path / "file.pt", ssl=True)
    network = tiny_network(channels=4, labels=2)
    report = load_swin(network, open_checkpoint(tmp_path / "file.pt"))
    assert "input channels 1 → 4" in str(report)
    weight = network.network.swinViT.patch_embed.proj.weight
    source = published["swinViT.patch_embed.proj.weight"]
    assert torch.allclose(weight[:, :2].sum(1, keepdim=True), source)
    assert not weight[:, 2:].any()


def test_weights_of_another_size_name_the_trainer_to_take(monai: None, tmp_path: Path) -> None:
    write_swin_file(tmp_path / "file.pt", ssl=True, feature_size=48)
    with pytest.raises(TransferError, match="feature size 48, the trainer's has 12; take -tr nnUNetTrainerVoCoSwin_B"):
        match_swin(tiny_network(), open_checkpoint(tmp_path / "file.pt"))


def test_other_weights_are_refused_by_swin_and_swin_weights_by_others(
    monai: None, tmp_path: Path, checkpoint: Path
) -> None:
    network = tiny_network()
    with pytest.raises(TransferError, match=r"no weights of a SwinUNETR.*VoCo_B_SSL_head.pt"):
        load_swin(network, open_checkpoint(checkpoint))
    write_swin_file(tmp_path / "file.pt", ssl=True)
    with pytest.raises(TransferError, match="the checkpoint is a SwinUNETR"):
        load_encoder(network, open_checkpoint(tmp_path / "file.pt"))


def test_a_fine_tuned_model_is_read_again() -> None:
    weights = {
        "network.swinViT.patch_embed.proj.weight": torch.zeros(12, 1, 2, 2, 2),
        "intensities.scale": torch.ones(1),
    }
    assert "swinViT.patch_embed.proj.weight" in swin_names(weights)


def test_published_names_that_are_missing_say_where_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"https://huggingface.co/Luffy503/VoCo.*hf://.*/VoComni_L.pt"):
        open_checkpoint(tmp_path / "VoComni_L.pt")


def test_plan_and_inspect_foresee_the_transfer(
    monai: None, preprocessed: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_plans(preprocessed, plans() | {"foreground_intensity_properties_per_channel": CT})
    file = tmp_path / "VoComni_B.pt"
    write_swin_file(file, ssl=False)
    plan_main(["-d", "999", "-pc", str(file), "-n", "swin"])
    output = capsys.readouterr().out
    assert "(100.0%) come from the checkpoint" in output
    assert "-175…250 HU become 0…1, exactly" in output
    assert "-tr a subclass of nnUNetTrainerVoCoSwin_B with feature_size = 12 -p nnUNetPlans_VoCo_swin" in output
    assert json.loads((preprocessed / "nnUNetPlans_VoCo_swin.json").read_text())["nnunetv2_voco"]["sha256"]
    inspect_main([str(file), "-d", "999"])
    output = capsys.readouterr().out
    assert "encoder and decoder" in output
    assert "SwinUNETR of feature size 12" in output
    assert "(100.0%) come from the checkpoint" in output
