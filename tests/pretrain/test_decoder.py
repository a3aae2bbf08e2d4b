"""The decoder that learns without labels."""

import numpy as np
import pytest
import torch
from torch import nn

from nnunetv2_voco.checkpoint import Checkpoint
from nnunetv2_voco.encoder import build_network
from nnunetv2_voco.pretrain.config import PretrainConfig
from nnunetv2_voco.pretrain.decoder import HIDDEN_SHARE, NOISE, DecoderLoss, hide_blocks
from nnunetv2_voco.pretrain.place import BETA
from nnunetv2_voco.pretrain.setting_presets import PAPER
from nnunetv2_voco.transfer import load_encoder
from tests.pretrain.tiny_run import ARCHITECTURE, LOSS, make_model, random_batch

SIZE = (8, 12, 6)


class Stub(nn.Module):
    """Stands for a U-Net: gives what it is told, whatever it is shown."""

    def __init__(self, outputs: list[torch.Tensor]) -> None:
        super().__init__()
        self.encoder, self.outputs, self.shown = nn.Identity(), outputs, []

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        self.shown.append(images)
        return self.outputs


def loss_of(outputs: list[torch.Tensor]) -> DecoderLoss:
    loss = DecoderLoss(ARCHITECTURE, nn.Identity())
    loss.decoder = Stub(outputs)
    return loss


@pytest.fixture
def crops(rng) -> torch.Tensor:
    """Two random crops of each of three volumes."""
    return torch.from_numpy(rng.normal(size=(3, 2, 1, *SIZE)))


@pytest.fixture
def places(rng) -> torch.Tensor:
    lower = torch.from_numpy(rng.random((3, 2, 1, 3)))
    return torch.cat([lower, lower + torch.tensor([0.3, 0.2, 0.1])], dim=2)


def truth(crops: torch.Tensor, places: torch.Tensor, factor: int) -> torch.Tensor:
    """Intensity and place of every voxel at a scale, written with loops."""
    size = [n // factor for n in SIZE]
    result = torch.zeros(3, 2, 4, *size, dtype=torch.float64)
    for n, t in np.ndindex(3, 2):
        for at in np.ndindex(*size):
            box = tuple(slice(i * factor, (i + 1) * factor) for i in at)
            result[n, t, 0][at] = crops[n, t, 0][box].mean()
            lower, upper = places[n, t]
            for axis in range(3):
                share = (at[axis] + 0.5) / size[axis]
                result[n, t, 1 + axis][at] = lower[axis] + share * (upper[axis] - lower[axis])
    return result.flatten(0, 1)


def test_true_intensities_and_places_have_no_loss_and_neither_has_a_shift_of_a_volume(crops, places):
    outputs = [truth(crops, places, factor) for factor in (1, 2)]
    assert loss_of(outputs)(crops, crops, places) == pytest.approx(0, abs=1e-12)
    for output in outputs:
        output[2:4, 1:] += torch.tensor([3.0, -1.0, 2.0])[:, None, None, None]  # both crops of the second volume
    assert loss_of(outputs)(crops, crops, places) == pytest.approx(0, abs=1e-10)


def test_loss_is_that_of_a_loop_over_scales_and_crops(crops, places, rng):
    outputs = [torch.from_numpy(rng.normal(size=truth(crops, places, factor).shape)) for factor in (1, 2)]
    expected = []
    for factor, output in zip((1, 2), outputs, strict=True):
        error = (output - truth(crops, places, factor)).unflatten(0, (3, 2))
        terms = []
        for n in range(3):
            shift = error[n, :, 1:].mean(dim=(0, 2, 3, 4))
            for t in range(2):
                distance = (error[n, t, 1:] - shift[:, None, None, None]).abs()
                place = torch.where(distance < BETA, distance**2 / (2 * BETA), distance - BETA / 2) / BETA
                terms.append((error[n, t, 0] ** 2).mean() + place.mean())
        expected.append(torch.stack(terms).mean())
    total = (2 * expected[0] + expected[1]) / 3  # half the weight for half the resolution
    torch.testing.assert_close(loss_of(outputs)(crops, crops, places), total)


def test_network_is_shown_what_is_hidden_and_asked_for_the_whole(crops, places):
    outputs = [truth(crops, places, factor) for factor in (1, 2)]
    loss = loss_of(outputs)
    assert loss(torch.zeros_like(crops), crops, places) == pytest.approx(0, abs=1e-12)
    assert not loss.decoder.shown[0].any()


def test_half_of_the_blocks_are_hidden_and_the_rest_is_only_noisy(rng):
    crops = torch.full((400, 1, 8, 12, 6), 5.0)
    hidden = hide_blocks(crops, rng)
    blocks = hidden.unfold(2, 2, 2).unfold(3, 3, 3)[:, 0, :, :, [0, 5]].mean(dim=(-1, -2))  # 4 × 4 blocks at two ends
    is_hidden = blocks < 2.5
    assert ((blocks.abs() < 4 * NOISE) | ((blocks - 5).abs() < 4 * NOISE)).all()
    assert is_hidden.float().mean() == pytest.approx(HIDDEN_SHARE, abs=0.03)
    assert (hidden - torch.where(hidden < 2.5, 0.0, 5.0)).std() == pytest.approx(NOISE, rel=0.02)


def test_every_voxel_of_a_block_is_hidden_or_none(rng):
    hidden = hide_blocks(torch.full((50, 1, 8, 12, 6), 5.0), rng) < 2.5
    assert (hidden[:, :, ::2] == hidden[:, :, 1::2]).all()
    assert (hidden[..., ::3, :] == hidden[..., 1::3, :]).all()
    assert (hidden[..., ::3, :] == hidden[..., 2::3, :]).all()


@pytest.mark.parametrize("size", [(1, 5, 7), (2, 3, 4), (64, 64, 64)])
def test_any_size_can_be_hidden(size, rng):
    crops = torch.ones(2, 1, *size)
    assert hide_blocks(crops, rng).shape == crops.shape
    assert torch.equal(crops, torch.ones_like(crops))


def test_all_that_is_learned_of_the_network_fits_into_nnunets():
    model = make_model(decoder=True)
    network = build_network(ARCHITECTURE, num_input_channels=1, num_output_channels=7)
    encoder = {f"encoder.{name}": tensor for name, tensor in model.encoder.state_dict().items()}
    weights = encoder | model.decoder_loss.weights()
    report = load_encoder(network, Checkpoint(weights=weights, architecture=ARCHITECTURE), decoder=True)
    assert {record.state for record in (*report.encoder, *report.decoder)} == {"copied"}
    assert not any("seg_layers" in name for name in weights)


def test_decoder_and_encoder_learn_from_it_beside_the_other_losses():
    alone, both = make_model(), make_model(decoder=True)
    apart, joined = (model(*random_batch(), **LOSS) for model in (alone, both))
    assert joined.decoder > 0
    assert apart.decoder == 0
    torch.testing.assert_close(joined.total, apart.total + joined.decoder)
    apart.total.backward()
    joined.total.backward()
    assert all(p.grad is not None and p.grad.any() for p in both.decoder_loss.decoder.seg_layers.parameters())
    first = [next(model.encoder.parameters()).grad for model in (alone, both)]
    assert not torch.allclose(*first)


def test_random_crops_alone_pass_the_decoder():
    model, seen = make_model(decoder=True), []
    model.decoder_loss.decoder.register_forward_pre_hook(lambda _, maps: seen.append(len(maps[0][0])))
    model(*random_batch(volumes=3), **LOSS)
    assert seen == [3 * 2]


def test_flipped_crops_are_refused_as_they_show_no_place():
    with pytest.raises(ValueError, match="decoder_weight 1.0 with flip_p 0.2"):
        PretrainConfig(decoder_weight=1.0, place_weight=0.0, flip_p=0.2)


def test_published_settings_train_no_decoder():
    assert not PretrainConfig(**PAPER).trains_decoder
    assert PretrainConfig(decoder_weight=1.0).trains_decoder
