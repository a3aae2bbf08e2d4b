from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nnunetv2_voco.checkpoint import (
    CITATIONS,
    FORMAT_VERSION,
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
)
from nnunetv2_voco.encoder import build_encoder, plain_architecture

ARCHITECTURE = plain_architecture((4, 8))


@pytest.fixture
def content() -> Checkpoint:
    weights = build_encoder(ARCHITECTURE).state_dict()
    return Checkpoint(
        weights={f"encoder.{name}": tensor for name, tensor in weights.items()},
        architecture=ARCHITECTURE,
        preprocessing={
            "spacing_mm": [1.5, 1.5, 1.5],
            "orientation": "LPS",
            "normalization_scheme": "CTNormalization",
            "intensity_properties": {"mean": 12.5, "std": 100.0},
            "interpolation": "linear",
        },
        pretraining={"method": "VoCo", "grid": [1, 3, 3], "crop_size": [64, 64, 64], "steps": 7, "num_volumes": 2},
        provenance={"packages": {"torch": "2"}},
    )


def rewrite(path: Path, **changes: object) -> None:
    torch.save({**torch.load(path, weights_only=True), **changes}, path)


def test_reading_gives_back_what_was_written(tmp_path: Path, content: Checkpoint):
    save_checkpoint(tmp_path / "a.pth", content)
    got = load_checkpoint(tmp_path / "a.pth")
    assert got.weights.keys() == content.weights.keys()
    assert all(torch.equal(got.weights[name], tensor) for name, tensor in content.weights.items())
    assert replace(got, weights={}) == replace(content, weights={})
    assert got.citations == CITATIONS


def test_weights_fit_the_described_encoder(tmp_path: Path, content: Checkpoint):
    save_checkpoint(tmp_path / "a.pth", content)
    got = load_checkpoint(str(tmp_path / "a.pth"))
    encoder = build_encoder(got.architecture, num_input_channels=got.num_input_channels)
    encoder.load_state_dict({name.removeprefix("encoder."): tensor for name, tensor in got.weights.items()})


def test_file_holds_tensors_and_plain_types_only(tmp_path: Path, content: Checkpoint):
    save_checkpoint(tmp_path / "a.pth", content)
    assert torch.load(tmp_path / "a.pth", weights_only=True)["format_version"] == 1


def test_file_with_a_decoder_is_not_for_versions_that_know_encoders_alone(tmp_path: Path, content: Checkpoint):
    both = replace(content, weights=content.weights | {"decoder.seg_layers.0.bias": torch.zeros(2)})
    save_checkpoint(tmp_path / "a.pth", both)
    assert torch.load(tmp_path / "a.pth", weights_only=True)["format_version"] == FORMAT_VERSION == 2
    assert load_checkpoint(tmp_path / "a.pth").weights.keys() == both.weights.keys()


def test_view_of_a_larger_tensor_does_not_drag_it_along(tmp_path: Path, content: Checkpoint):
    large = torch.zeros(1_000_000)
    save_checkpoint(tmp_path / "a.pth", replace(content, weights={"encoder.x": large[:4]}))
    assert (tmp_path / "a.pth").stat().st_size < 100_000


def test_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="absent.pth: no such file"):
        load_checkpoint(tmp_path / "absent.pth")


@pytest.mark.parametrize("garbage", [b"", b"hello", b"PK\x03\x04" + bytes(200)])
def test_file_of_something_else_is_refused(tmp_path: Path, garbage: bytes):
    (tmp_path / "a.pth").write_bytes(garbage)
    with pytest.raises(CheckpointError, match="a.pth: cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_file_is_refused(tmp_path: Path, content: Checkpoint, share: float):
    save_checkpoint(tmp_path / "a.pth", content)
    whole = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match="a.pth: cannot be read"):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("other", [{"state_dict": {}}, {}, [1, 2], torch.zeros(3)])
def test_weights_of_another_program_are_refused(tmp_path: Path, other: object):
    torch.save(other, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="a.pth: not a checkpoint of nnunetv2_voco"):
        load_checkpoint(tmp_path / "a.pth")


def test_file_that_would_run_code_is_refused(tmp_path: Path):
    torch.save({"format": "nnunetv2_voco.encoder", "path": tmp_path}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="a.pth"):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, "new", None])
def test_newer_format_is_refused_with_what_to_do(tmp_path: Path, content: Checkpoint, version: object):
    save_checkpoint(tmp_path / "a.pth", content)
    rewrite(tmp_path / "a.pth", format_version=version)
    with pytest.raises(CheckpointError, match=f"format version {version}; .* Update nnunetv2_voco"):
        load_checkpoint(tmp_path / "a.pth")


def test_file_without_all_its_parts_is_refused(tmp_path: Path, content: Checkpoint):
    save_checkpoint(tmp_path / "a.pth", content)
    stored = torch.load(tmp_path / "a.pth", weights_only=True)
    del stored["network_weights"]
    torch.save(stored, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="network_weights"):
        load_checkpoint(tmp_path / "a.pth")
