from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization

import nnunetv2_voco
from nnunetv2_voco.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from nnunetv2_voco.encoder import Architecture, build_network, plain_architecture, residual_architecture
from tests.nnunetv2_voco.planned_dataset import FEATURES, write_checkpoint

STATISTICS = {"mean": 50.0, "std": 200.0, "percentile_00_5": -800.0, "percentile_99_5": 900.0}
RESIDUAL = residual_architecture((4, 8, 8), (1, 3, 2))


def write_described(path: Path, **preprocessing: object) -> Path:
    torch.manual_seed(2)
    architecture = plain_architecture(FEATURES)
    network = build_network(architecture, num_input_channels=1)
    checkpoint = Checkpoint(
        weights={name: tensor for name, tensor in network.state_dict().items() if name.startswith("encoder.")},
        architecture=architecture,
        preprocessing={
            "spacing_mm": [2.0, 1.0, 1.5],
            "orientation": "LPS",
            "normalization_scheme": "CTNormalization",
            "intensity_properties": STATISTICS,
        }
        | preprocessing,
        pretraining={"crop_size": [16, 16, 16]},
    )
    save_checkpoint(path, checkpoint)
    return path


def test_package_root_offers_it_and_nothing_unknown() -> None:
    assert nnunetv2_voco.load_encoder_model.__module__ == "nnunetv2_voco.encoder_model"
    with pytest.raises(AttributeError, match="has no attribute 'load_encoder'"):
        nnunetv2_voco.load_encoder  # noqa: B018


def test_maps_are_those_of_the_weights_and_have_the_strides_that_are_said(tmp_path: Path) -> None:
    path = write_described(tmp_path / "encoder.pth")
    model = nnunetv2_voco.load_encoder_model(path)
    image = torch.randn(2, 1, 16, 8, 24)
    maps = model(image)
    assert model.strides == ((1, 1, 1), (2, 2, 2), (4, 4, 4))
    assert [m.shape[1] for m in maps] == list(model.features) == [4, 8, 8]
    for stage, stride in zip(maps, model.strides, strict=True):
        assert stage.shape[2:] == tuple(n // s for n, s in zip((16, 8, 24), stride, strict=True))
    network = build_network(plain_architecture(FEATURES), num_input_channels=1)
    weights = load_checkpoint(path).weights
    network.encoder.load_state_dict({name.removeprefix("encoder."): tensor for name, tensor in weights.items()})
    for ours, theirs in zip(maps, network.encoder.eval()(image), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_embedding_is_one_vector_per_image_and_places_have_their_own(tmp_path: Path) -> None:
    model = nnunetv2_voco.load_encoder_model(write_described(tmp_path / "encoder.pth"))
    image = torch.randn(2, 1, 16, 16, 16)
    assert model.embed(image).shape == (2, model.embedding_size) == (2, 20)
    features = model.embed_places(image[:1], np.array([[0, 4, 8]]))
    torch.testing.assert_close(features[0, :4], model(image[:1])[0][0, :, 0, 4, 8], rtol=1e-4, atol=1e-5)


def test_contract_says_what_the_checkpoint_says(tmp_path: Path) -> None:
    contract = nnunetv2_voco.load_encoder_model(write_described(tmp_path / "encoder.pth")).contract
    assert contract.spacing_mm == (2.0, 1.0, 1.5)
    assert contract.stride == (4, 4, 4)
    assert contract.crop_size == (16, 16, 16)
    for text in ("2 × 1 × 1.5 mm", "LPS", "CTNormalization", "std 200", "4 × 4 × 4 voxels", "crops of 16 × 16 × 16"):
        assert text in str(contract)


def test_hounsfield_units_are_normalised_as_by_nnunet(tmp_path: Path, rng: np.random.Generator) -> None:
    model = nnunetv2_voco.load_encoder_model(write_described(tmp_path / "encoder.pth"))
    volume = rng.integers(-1024, 3000, (5, 6, 7)).astype(np.int16)
    expected = CTNormalization(use_mask_for_norm=False, intensityproperties=STATISTICS).run(volume.astype(np.float32))
    np.testing.assert_array_equal(model.normalise(volume).numpy(), expected)


@pytest.mark.parametrize("use_mask", [False, True])
def test_other_modalities_are_normalised_by_themselves(
    tmp_path: Path, rng: np.random.Generator, use_mask: bool
) -> None:
    path = write_described(
        tmp_path / "mr.pth",
        normalization_scheme="ZScoreNormalization",
        intensity_properties={},
        use_mask_for_norm=use_mask,
    )
    volume = rng.uniform(1, 900, (8, 8, 8))
    volume[:4] = 0
    normalised = nnunetv2_voco.load_encoder_model(path).normalise(volume)
    inside = normalised[4:] if use_mask else normalised
    assert abs(float(inside.mean())) < 1e-4
    assert float(inside.std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert not use_mask or not normalised[:4].any()


@pytest.mark.parametrize("architecture", [plain_architecture((4, 8, 8, 8)), RESIDUAL])
def test_bare_weights_of_nnunets_default_networks_need_no_description(
    tmp_path: Path, architecture: Architecture
) -> None:
    torch.save(build_network(architecture, num_input_channels=2).state_dict(), tmp_path / "bare.pt")
    model = nnunetv2_voco.load_encoder_model(tmp_path / "bare.pt")
    assert model.features == architecture.features
    assert model.contract.channels == 2
    assert model.contract.spacing_mm is None
    assert "unknown normalisation" in str(model.contract)
    assert len(model(torch.randn(1, 2, 16, 16, 16))) == architecture.n_stages
    with pytest.raises(ValueError, match="names no normalisation"):
        model.normalise(np.zeros((4, 4, 4)))


def test_wrong_architecture_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "encoder.pth")
    for wrong in (plain_architecture((4, 8, 16)), plain_architecture((4, 8)), plain_architecture((4, 8, 8, 8))):
        with pytest.raises(CheckpointError, match="weights and network differ; name the right architecture"):
            nnunetv2_voco.load_encoder_model(path, architecture=wrong)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((16, 16, 16), r"image of shape \(16, 16, 16\): \(N, 1, z, y, x\) is expected"),
        ((1, 2, 16, 16, 16), r"image of shape \(1, 2, 16, 16, 16\)"),
        ((1, 1, 16, 18, 16), "must be a multiple of the network's stride"),
    ],
)
def test_image_of_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nnunetv2_voco.load_encoder_model(write_checkpoint(tmp_path / "encoder.pth"))(torch.zeros(shape))
