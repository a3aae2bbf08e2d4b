import json
import pickle
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from nnunetv2_voco.checkpoint import Checkpoint, CheckpointError
from nnunetv2_voco.encoder import build_network, plain_architecture, residual_architecture
from nnunetv2_voco.foreign import ForeignCheckpoint, network_names, open_checkpoint
from nnunetv2_voco.layout import canonical_weights
from nnunetv2_voco.nnssl import adaptation_plan
from nnunetv2_voco.transfer import encoder_tensors, load_encoder
from tests.conftest import SHARED
from tests.nnunetv2_voco.planned_dataset import FEATURES, plans

PLAIN = plain_architecture(FEATURES)
RESIDUAL = residual_architecture(FEATURES, (1, 2, 2))


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network(PLAIN, num_input_channels=1)


def assert_loads_wholly(checkpoint: Checkpoint | ForeignCheckpoint, source: torch.nn.Module, **kwargs: bool) -> None:
    target = build_network(RESIDUAL if hasattr(source.encoder, "stem") else PLAIN, num_input_channels=1)
    assert load_encoder(target, checkpoint, **kwargs).share == 1
    expected = encoder_tensors(source)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in encoder_tensors(target).items())


def encoder_state(network: torch.nn.Module) -> dict[str, Tensor]:
    return network.encoder.state_dict()


def prefixed(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


def test_own_checkpoint_comes_back_as_such(checkpoint: Path) -> None:
    assert isinstance(open_checkpoint(checkpoint), Checkpoint)


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "module._orig_mod.", "backbone.", "module.backbone.", "student.backbone.", "model."],
)
@pytest.mark.parametrize("part", ["network", "encoder"])
@pytest.mark.parametrize("key", [None, "state_dict", "network_weights", "net", "student"])
def test_state_dicts_with_prefixes_load(
    prefix: str, part: str, key: str | None, network: torch.nn.Module, tmp_path: Path
) -> None:
    weights = prefixed(network.state_dict() if part == "network" else encoder_state(network), prefix)
    file = tmp_path / "weights.pt"
    torch.save(weights if key is None else {key: weights, "epoch": 3}, file)
    assert_loads_wholly(open_checkpoint(file), network)


@pytest.mark.parametrize("prefix", ["encoder.", "encoder.encoder.", "module.encoder.", "encoder._orig_mod."])
def test_encoder_prefixes_lead_to_the_network_s_names(prefix: str, network: torch.nn.Module) -> None:
    names = network_names(prefixed(encoder_state(network), prefix))
    assert set(names) == set(encoder_tensors(network))


def test_student_is_taken_where_a_teacher_lies_beside_it(network: torch.nn.Module, tmp_path: Path) -> None:
    teacher = {name: torch.zeros_like(tensor) for name, tensor in encoder_state(network).items()}
    both = prefixed(teacher, "teacher.backbone.") | prefixed(encoder_state(network), "student.backbone.")
    torch.save(both, tmp_path / "weights.pt")
    assert_loads_wholly(open_checkpoint(tmp_path / "weights.pt"), network)


def test_safetensors_load(network: torch.nn.Module, tmp_path: Path) -> None:
    weights = {name: tensor.contiguous() for name, tensor in canonical_weights(network.state_dict()).items()}
    save_file(weights, tmp_path / "weights.safetensors")
    assert_loads_wholly(open_checkpoint(tmp_path / "weights.safetensors"), network)


def test_damaged_safetensors_are_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"no such thing")
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        open_checkpoint(tmp_path / "weights.safetensors")


def test_authors_nnunet_weights_load_with_their_decoder(tmp_path: Path) -> None:
    reference = SHARED / "reference" / "vocomni_nnunet_state_dict_shapes.json"
    if not reference.is_file():
        pytest.skip(f"the names and shapes are not here ({reference})")
    shapes = json.loads(reference.read_text())
    target = build_network(plain_architecture(), num_input_channels=1, num_output_channels=21)
    assert {name: list(t.shape) for name, t in target.state_dict().items() if name in shapes} == shapes
    released = {name: torch.full(shape, 0.5) for name, shape in shapes.items()}
    torch.save(released, tmp_path / "VoComni_nnunet.pt")
    target = build_network(plain_architecture(), num_input_channels=1, num_output_channels=3)
    report = load_encoder(target, open_checkpoint(tmp_path / "VoComni_nnunet.pt"), decoder=True)
    assert report.share == 1
    assert {record.state for record in report.decoder} == {"copied"}
    assert not report.unused
    assert all((tensor == 0.5).all() for name, tensor in target.named_parameters() if "seg_layers" not in name)


@pytest.mark.parametrize("architecture", [PLAIN, RESIDUAL])
def test_nnssl_checkpoint_loads_and_says_what_it_is(architecture, tmp_path: Path) -> None:
    source = build_network(architecture, num_input_channels=1)
    plan = adaptation_plan(architecture, num_input_channels=1, preprocessing={"spacing_mm": [1, 1, 1]}, pretraining={})
    torch.save(
        {
            "network_weights": source.state_dict(),
            "nnssl_adaptation_plan": plan,
            "trainer_name": "BaseMAETrainer",
            "logging": {"losses": [np.float32(1), np.float64(2)]},
            "citations": [{"type": "Method", "name": "MAE", "apa_citations": ["He 2022"]}],
        },
        tmp_path / "nnssl.pth",
    )
    checkpoint = open_checkpoint(tmp_path / "nnssl.pth")
    assert isinstance(checkpoint, ForeignCheckpoint)
    assert checkpoint.origin == "nnssl"
    assert checkpoint.architecture == architecture
    assert checkpoint.details["trainer"] == "BaseMAETrainer"
    assert checkpoint.citations == ("He 2022",)
    assert_loads_wholly(checkpoint, source)


def test_nnssl_preset_and_other_places_of_the_encoder_are_understood(tmp_path: Path) -> None:
    with torch.device("meta"):
        state = build_network(residual_architecture(), num_input_channels=1).encoder.state_dict()
    weights = {f"net.{name}": torch.zeros(1).expand(tensor.shape) for name, tensor in state.items()}
    plan = {
        "architecture_plans": {"arch_class_name": "ResEncL", "arch_kwargs": None, "arch_kwargs_requiring_import": None},
        "pretrain_plan": {"configurations": {"onemmiso": {"spacing": [1, 1, 1], "patch_size": [160, 160, 160]}}},
        "key_to_encoder": "net.stages",
        "key_to_stem": "net.stem",
    }
    torch.save({"network_weights": weights, "nnssl_adaptation_plan": plan}, tmp_path / "checkpoint_final.pth")
    checkpoint = open_checkpoint(tmp_path / "checkpoint_final.pth")
    assert checkpoint.architecture == residual_architecture()
    with torch.device("meta"):
        target = build_network(residual_architecture(), num_input_channels=1)
    assert {name: t.shape for name, t in encoder_tensors(target).items()} == {
        name: tensor.shape for name, tensor in checkpoint.weights.items()
    }


def test_stock_nnunet_checkpoint_loads_with_the_numpy_scalars_in_it(network: torch.nn.Module, tmp_path: Path) -> None:
    torch.save(
        {
            "network_weights": network.state_dict(),
            "logging": {"dice": [[np.float32(0.5)], [np.float64(0.25)]], "epochs": [np.int64(3)]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 7,
            "init_args": {
                "plans": plans(),
                "configuration": "3d_cascade_fullres",
                "device": torch.device("cpu"),
                "dataset_json": {"labels": {"background": 0, "tumour": 2, "organ": 1}},
            },
            "trainer_name": "nnUNetTrainer",
        },
        tmp_path / "checkpoint_final.pth",
    )
    checkpoint = open_checkpoint(tmp_path / "checkpoint_final.pth")
    assert isinstance(checkpoint, ForeignCheckpoint)
    assert checkpoint.origin == "nnU-Net"
    assert checkpoint.architecture == PLAIN
    assert checkpoint.details["epochs"] == 7
    assert checkpoint.classes == ("background", "organ", "tumour")
    assert_loads_wholly(checkpoint, network)


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("code in a checkpoint was run",))


def test_code_in_a_checkpoint_is_not_run(network: torch.nn.Module, tmp_path: Path) -> None:
    torch.save({"network_weights": network.state_dict(), "init_args": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="holds more than tensors and plain types"):
        open_checkpoint(tmp_path / "evil.pth")


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {"fc.weight": torch.zeros(1)}])
def test_file_without_an_encoder_is_a_clear_error(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="unknown format|no encoder of a network of nnU-Net"):
        open_checkpoint(tmp_path / "other.pth")


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps({"a": 1})])
def test_file_that_is_no_checkpoint_is_a_clear_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="other.pth"):
        open_checkpoint(tmp_path / "other.pth")


def test_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.pth: no such file"):
        open_checkpoint("nowhere.pth")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> Path:
    """A Hugging Face cache, off line, with one repository."""
    snapshot = tmp_path / "hub" / "models--someone--voco" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    (snapshot / "voco_encoder.pth").write_bytes(checkpoint.read_bytes())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return snapshot


@pytest.mark.parametrize("file", ["", "/voco_encoder.pth"])
def test_hub_repository_loads_from_the_local_cache(file: str, hub: Path, checkpoint: Path) -> None:
    opened = open_checkpoint(f"hf://someone/voco{file}")
    assert opened.weights.keys() == open_checkpoint(checkpoint).weights.keys()


def test_file_in_a_sub_folder_of_a_hub_repository_loads(hub: Path) -> None:
    (hub / "models").mkdir()
    (hub / "voco_encoder.pth").rename(hub / "models" / "a.pth")
    assert open_checkpoint("hf://someone/voco/models/a.pth").weights


def test_hub_repository_without_weights_is_a_clear_error(hub: Path) -> None:
    with pytest.raises(FileNotFoundError, match="hf://someone/other: none of voco_encoder.pth, checkpoint_final.pth"):
        open_checkpoint("hf://someone/other")


def test_hub_address_without_an_owner_is_a_clear_error() -> None:
    with pytest.raises(CheckpointError, match="expected hf://owner/name"):
        open_checkpoint("hf://voco")
