import numpy as np
import pytest
import torch

from nnunetv2_voco.encoder import build_encoder, embedding_size, plain_architecture
from nnunetv2_voco.features import features_at, pooled_embedding

ARCHITECTURE = plain_architecture((4, 8, 8))
SIZE = (16, 24, 8)


@pytest.fixture(scope="module")
def maps() -> list[torch.Tensor]:
    torch.manual_seed(0)
    with torch.no_grad():
        return build_encoder(ARCHITECTURE)(torch.randn(1, 1, *SIZE))


def test_pooled_embedding_is_the_mean_of_every_channel(maps):
    expected = np.concatenate([stage[0].numpy().reshape(stage.shape[1], -1).mean(axis=1) for stage in maps])
    np.testing.assert_allclose(pooled_embedding(maps)[0], expected, rtol=1e-5, atol=1e-6)
    assert len(expected) == embedding_size(ARCHITECTURE)


def test_a_place_on_the_coarsest_grid_gets_the_maps_own_values(maps):
    places = np.array([[0, 0, 0], [4, 12, 4], [12, 20, 4]])  # multiples of the total stride of 4
    expected = [
        np.concatenate([stage[0, :, z // s, y // s, x // s].numpy() for stage, s in zip(maps, (1, 2, 4), strict=True)])
        for z, y, x in places
    ]
    np.testing.assert_allclose(features_at(maps, places, SIZE), expected, rtol=1e-4, atol=1e-5)


def test_between_elements_features_are_interpolated_and_beyond_them_the_rim_goes_on(maps):
    middle, first, second, beyond = features_at(maps, np.array([[6, 8, 4], [4, 8, 4], [8, 8, 4], [15, 8, 4]]), SIZE)
    coarse = slice(-8, None)
    torch.testing.assert_close(middle[coarse], (first[coarse] + second[coarse]) / 2)
    torch.testing.assert_close(beyond[coarse], maps[-1][0, :, -1, 2, 1])
