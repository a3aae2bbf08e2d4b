import numpy as np
import pytest
import torch

from nnunetv2_voco.encoder import build_encoder, plain_architecture
from nnunetv2_voco.pretrain.config import PretrainConfig
from nnunetv2_voco.pretrain.crops import BodyMap, base_corners
from nnunetv2_voco.pretrain.dataset import CropPlan, crop_places, layout_in_region
from nnunetv2_voco.pretrain.place import BETA, PlaceHeads, element_places
from nnunetv2_voco.pretrain.setting_presets import PAPER
from tests.pretrain.tiny_run import LOSS, make_model, random_batch

ARCHITECTURE = plain_architecture((4, 6, 8, 10))
SIZE = (8, 16, 16)


class Volume:
    """A volume that is all body."""

    class record:
        shape = (40, 60, 60)

    body = BodyMap(np.ones((5, 8, 8)), 8)


@pytest.fixture
def heads() -> PlaceHeads:
    return PlaceHeads(ARCHITECTURE, SIZE)


@pytest.fixture
def places(rng) -> torch.Tensor:
    """Corners of 5 crops of 2 volumes."""
    lower = torch.from_numpy(rng.random((2, 5, 1, 3)))
    return torch.cat([lower, lower + torch.tensor([1 / 6, 1 / 3, 1 / 3])], dim=2)


def perfect(heads: PlaceHeads, places: torch.Tensor) -> torch.Tensor:
    """Predictions that are the true places."""
    return torch.cat([element_places(places, size).flatten(2) for size in heads.map_sizes], dim=2)


EVERYTHING = torch.ones(2, 5, dtype=torch.bool)


def test_heads_sit_on_the_coarse_stages_and_know_their_maps(heads: PlaceHeads):
    maps = build_encoder(ARCHITECTURE)(torch.randn(3, 1, *SIZE))
    assert heads.stages == [2, 3]
    assert heads.map_sizes == [tuple(maps[stage].shape[2:]) for stage in heads.stages]
    assert heads(maps).shape == (3, heads.size)


def test_network_without_coarse_stages_has_a_head_on_its_last_one():
    assert PlaceHeads(plain_architecture((4, 8)), SIZE).stages == [1]


def test_elements_lie_at_the_centres_of_equal_parts_of_the_crop():
    places = torch.tensor([[[[0.0, 0.0, 10.0], [1.0, 2.0, 14.0]]]])
    z, y, x = element_places(places, (1, 2, 4))[0, 0]
    assert z.tolist() == [0.5] * 8
    assert y.tolist() == [0.5] * 4 + [1.5] * 4
    assert x.tolist() == [10.5, 11.5, 12.5, 13.5] * 2


def test_true_places_have_no_loss_and_neither_has_a_shift_of_a_whole_volume(heads: PlaceHeads, places):
    predictions = perfect(heads, places)
    assert heads.loss(predictions, places, EVERYTHING) == pytest.approx(0, abs=1e-12)
    shift = torch.cat([torch.tensor([3.0, -1.0, 7.0]).repeat_interleave(int(np.prod(s))) for s in heads.map_sizes])
    predictions[1] += shift
    assert heads.loss(predictions, places, EVERYTHING) == pytest.approx(0, abs=1e-10)


def test_loss_is_that_of_a_loop_over_volumes_crops_and_elements(heads: PlaceHeads, places, rng):
    predictions = torch.from_numpy(rng.normal(size=(2, 5, heads.size)))
    valid = torch.from_numpy(rng.random((2, 5)) < 0.7)
    per_crop, at = np.zeros((2, 5)), 0
    for size in heads.map_sizes:
        count = int(np.prod(size))
        for n in range(2):
            errors = {}
            for k in np.flatnonzero(valid[n]):
                predicted = predictions[n, k, at : at + 3 * count].reshape(3, count).numpy()
                errors[k] = predicted - element_places(places, size)[n, k].numpy()
            mean = np.mean([error.mean(axis=1) for error in errors.values()], axis=0)
            for k, error in errors.items():
                off = np.abs(error - mean[:, None])
                huber = np.where(off < BETA, 0.5 * off**2 / BETA, off - 0.5 * BETA)
                per_crop[n, k] += huber.mean() / len(heads.map_sizes)
        at += 3 * count
    expected = per_crop.sum() / valid.sum().item() / BETA
    assert heads.loss(predictions, places, valid).item() == pytest.approx(expected, rel=1e-9)


def test_crops_without_anatomy_take_no_part(heads: PlaceHeads, places, rng):
    predictions = torch.from_numpy(rng.normal(size=(2, 5, heads.size)))
    valid = EVERYTHING.clone()
    valid[0, 3] = False
    before = heads.loss(predictions, places, valid)
    predictions[0, 3] += 5
    assert heads.loss(predictions, places, valid) == before
    assert heads.loss(predictions, places, torch.zeros_like(valid)) == 0


def test_places_are_where_crops_lie_in_the_volume_in_edges_of_the_region(rng):
    plan = CropPlan(
        grid=(1, 3, 3), size_vox=SIZE, random_crops=2, min_body_crop=0.0, min_body_base=0.0, spacing_mm=(3.0, 1.0, 2.0)
    )  # fmt: skip
    corner = np.array([5, -4, 7])
    layout = layout_in_region(rng, Volume(), corner, plan)
    places = crop_places(layout, plan)
    assert places.shape == (11, 2, 3)
    unit_mm = 3 * 16 * 2.0  # the region's longest edge
    np.testing.assert_allclose(places[2, 0] * unit_mm, corner * plan.spacing_mm, rtol=1e-6)  # the first base
    np.testing.assert_allclose((places[:, 1] - places[:, 0]) * unit_mm, np.tile([24.0, 16.0, 32.0], (11, 1)), rtol=1e-5)
    np.testing.assert_allclose(
        places[:2, 0] * unit_mm, (layout.crops_T3 + corner) * np.array(plan.spacing_mm), rtol=1e-5
    )


def test_weight_scales_the_term_in_the_total_and_reaches_the_encoder():
    model, batch = make_model(), random_batch()
    with_place = model(*batch, **LOSS)
    without = model(*batch, **LOSS | {"place_weight": 0.0})
    assert with_place.place > 0
    assert (with_place.total - without.total).item() == pytest.approx(with_place.place.item(), rel=1e-4)
    only_place = {"intra_weight": 0.0, "inter_weight": 0.0, "reg_weight": 0.0}
    model(*batch, **LOSS | only_place).total.backward()
    assert all(p.grad.abs().max() > 0 for n, p in model.encoder.named_parameters() if n.endswith("conv.weight"))


def test_places_and_flips_exclude_each_other_and_the_paper_has_flips_alone():
    with pytest.raises(ValueError, match="place_weight 1.0 with flip_p 0.2"):
        PretrainConfig(flip_p=0.2)
    assert PretrainConfig(flip_p=0.2, place_weight=0.0).flip_p == 0.2
    paper = PretrainConfig(**PAPER)
    assert (paper.place_weight, paper.flip_p, paper.rotate_p) == (0.0, 0.2, 0.2)


@pytest.mark.parametrize(
    ("settings", "knows_height"), [({}, True), (PAPER, False)], ids=["default grid", "the paper's grid"]
)
def test_height_in_the_body_is_learned_only_where_the_grid_has_layers(rng, heads, settings, knows_height):
    config = PretrainConfig(**settings)
    plan = CropPlan(
        grid=config.grid, size_vox=SIZE, random_crops=2, min_body_crop=0.0, min_body_base=0.0, spacing_mm=(1.0,) * 3
    )
    layout = layout_in_region(rng, Volume(), np.array([5, 4, 7]), plan)
    places = torch.from_numpy(crop_places(layout, plan))[None].double()
    ignorant = places.clone()  # of how high a crop lies; what is above what within a crop it knows
    ignorant[:, :, :, 0] -= ignorant[:, :, :1, 0]
    loss = heads.loss(perfect(heads, ignorant), places, torch.ones(places.shape[:2], dtype=torch.bool))
    assert (loss > 0.01) == knows_height
    above = base_corners(config.grid, SIZE)[:, 0] > 0
    assert above.any() == knows_height  # VoCo's own labels neither
