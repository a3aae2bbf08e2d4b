from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization

from nnunetv2_voco.embedding.inputs import intensity_of
from nnunetv2_voco.embedding.volumes import embed_volume, window_starts
from nnunetv2_voco.encoder_model import EncoderModel, load_encoder_model
from nnunetv2_voco.features import pooled_embedding
from nnunetv2_voco.pretrain.cache import CachedVolume
from nnunetv2_voco.pretrain.crops import BodyMap
from nnunetv2_voco.pretrain.model import VoCoModel
from nnunetv2_voco.pretrain.preprocess import MAP_BLOCK
from tests.embedding.conftest import STATISTICS
from tests.pretrain.volumes import filled_cache

SHAPE = (20, 28, 33)
CPU = torch.device("cpu")


@pytest.fixture
def model(checkpoint: Path) -> EncoderModel:
    return load_encoder_model(checkpoint)


@pytest.fixture
def volume(tmp_path: Path, rng: np.random.Generator) -> CachedVolume:
    cache, (record,), _ = filled_cache(tmp_path, rng, [SHAPE])
    return cache.open(record)


def embed(
    model: EncoderModel, volume: CachedVolume, size: tuple[int, ...], step: float = 1.0
) -> tuple[np.ndarray, int]:
    embedding, count = embed_volume(
        model, volume, intensity_of(model.contract), size_vox=size, step=step, batch_size=3, device=CPU
    )
    return embedding.numpy(), count


def normalised(hu: np.ndarray) -> torch.Tensor:
    normaliser = CTNormalization(use_mask_for_norm=False, intensityproperties=STATISTICS)
    return torch.from_numpy(normaliser.run(hu.astype(np.float32)))[None, None]


def test_one_window_is_the_whole_volume_pooled(model: EncoderModel, volume: CachedVolume) -> None:
    hu = np.pad(volume.read((0, 0, 0), SHAPE), [(2, 2), (2, 2), (2, 1)], constant_values=-1024)
    with torch.no_grad():
        expected = pooled_embedding(model.encoder(normalised(hu)))[0]
    embedding, count = embed(model, volume, (24, 32, 36))
    assert count == 1
    np.testing.assert_allclose(embedding, expected, rtol=1e-4, atol=1e-5)


def test_windows_are_averaged_by_their_share_of_body(model: EncoderModel, volume: CachedVolume) -> None:
    blocks = np.full((3, 4, 5), 255, np.uint8)
    blocks[:2], blocks[:, :, 3:] = 128, 0  # half of what lies below is body, nothing on one side
    volume.body = BodyMap(blocks, MAP_BLOCK, full=255)
    size, step = (8, 16, 12), 0.5
    total, weight, count = np.zeros(model.embedding_size), 0.0, 0
    for corner in product(*window_starts(SHAPE, size, step)):
        share = volume.body.fraction(np.array([corner]), np.array(size))[0]
        if share >= 0.05:
            with torch.no_grad():
                crop = model.encoder(normalised(volume.read(corner, size)))
            total += share * pooled_embedding(crop)[0].numpy()
            weight, count = weight + share, count + 1
    embedding, windows = embed(model, volume, size, step)
    assert windows == count < len(list(product(*window_starts(SHAPE, size, step))))
    np.testing.assert_allclose(embedding, total / weight, rtol=1e-4, atol=1e-5)


def test_volume_without_body_is_embedded_all_the_same(model: EncoderModel, volume: CachedVolume) -> None:
    volume.body = BodyMap(np.zeros((3, 4, 5), np.uint8), MAP_BLOCK, full=255)
    embedding, count = embed(model, volume, (16, 16, 16))
    assert count == 2 * 2 * 3
    assert np.isfinite(embedding).all()


def test_every_voxel_is_in_a_window() -> None:
    for step in (1.0, 0.5, 0.3):
        for shape, starts in zip(SHAPE, window_starts(SHAPE, (16, 16, 16), step), strict=True):
            covered = {voxel for start in starts for voxel in range(start, start + 16)}
            assert covered == set(range(shape))


def test_embedding_is_that_of_pretraining(model: EncoderModel) -> None:
    training = VoCoModel(model.architecture, random_crops=1, projection_size=8)
    training.encoder.load_state_dict(model.encoder.state_dict())
    crops = torch.randn(2, 3, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(model.embed(crops.flatten(0, 1)).unflatten(0, (2, 3)), training.embed(crops)[0])
