import json
from pathlib import Path

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from nnunetv2_voco.checkpoint import load_checkpoint
from nnunetv2_voco.encoder import Architecture, build_network, plain_architecture, residual_architecture
from nnunetv2_voco.nnssl import adaptation_plan
from tests.nnunetv2_voco.planned_dataset import write_checkpoint

ARCHITECTURES = [plain_architecture((4, 8, 8)), residual_architecture((4, 8, 8), (1, 1, 1))]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
# nnU-Net looks for a class named without its module, as nnssl names it, and warns
@pytest.mark.filterwarnings("ignore:.*Network class .* not found:UserWarning")
def test_file_has_what_nnunets_own_fine_tuning_reads(architecture: Architecture, tmp_path: Path) -> None:
    content = torch.load(write_checkpoint(tmp_path / "voco.pth", architecture), weights_only=True)
    plan = content["nnssl_adaptation_plan"]
    block = plan["architecture_plans"]
    network = get_network_from_plans(
        block["arch_class_name"], block["arch_kwargs"], block["arch_kwargs_requiring_import"], 1, 2
    )
    assert (network.key_to_encoder, network.key_to_stem) == (plan["key_to_encoder"], plan["key_to_stem"])
    for part in ("key_to_encoder", "key_to_stem"):
        state = {
            name.removeprefix(f"{plan[part]}."): tensor
            for name, tensor in content["network_weights"].items()
            if name.startswith(f"{plan[part]}.")
        }
        network.get_submodule(plan[part]).load_state_dict(state)
    for key in plan["keys_to_in_proj"]:
        assert content["network_weights"][f"{key}.weight"].shape[1] == plan["pretrain_num_input_channels"]
    configuration = next(iter(plan["pretrain_plan"]["configurations"].values()))
    assert configuration["spacing"] == [1.5, 1.0, 1.0]
    assert configuration["patch_size"] == [16, 16, 16]
    assert plan["recommended_downstream_patchsize"] == [16, 48, 48]
    assert plan["architecture_kwargs"]["kernel_sizes"] == [[3, 3, 3]] * 3
    assert plan["key_to_lpe"] is None
    assert block["arch_class_name"] in ("PlainConvUNet", "ResidualEncoderUNet")
    assert block["arch_kwargs_requiring_import"] == ["conv_op", "norm_op", "dropout_op", "nonlin"]
    for citation in content["citations"]:
        assert citation["type"]
        assert citation["name"]
        assert all(isinstance(text, str) for text in citation["apa_citations"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_plan_is_of_plain_types(architecture: Architecture) -> None:
    plan = adaptation_plan(architecture, num_input_channels=2, preprocessing={}, pretraining={})
    assert json.loads(json.dumps(plan)) == plan


def test_citations_survive_saving(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write_checkpoint(tmp_path / "voco.pth"))
    assert any("VoCo" in citation for citation in checkpoint.citations)
    assert all(isinstance(citation, str) for citation in checkpoint.citations)


def test_each_tensor_is_in_the_file_once(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path / "voco.pth", plain_architecture((16, 32, 32)))
    encoder = build_network(plain_architecture((16, 32, 32)), num_input_channels=1).encoder
    assert file.stat().st_size < 1.2 * sum(4 * parameter.numel() for parameter in encoder.parameters())
