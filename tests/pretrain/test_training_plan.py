import numpy as np
import pytest

from nnunetv2_voco.encoder import check_input_size, plain_architecture, residual_architecture
from nnunetv2_voco.pretrain.cache import Record
from nnunetv2_voco.pretrain.config import PretrainConfig
from nnunetv2_voco.pretrain.dataset_plans import DatasetPlans
from nnunetv2_voco.pretrain.network import choose_architecture, crop_size_for_patch
from nnunetv2_voco.pretrain.preprocess import HISTOGRAM_EDGES, Target
from nnunetv2_voco.pretrain.training_plan import (
    TrainingPlan,
    make_training_plan,
    preprocessing_target,
    split_volumes,
)

TARGET = Target(spacing_mm=(1.5, 1.5, 1.5))


def records(number: int, *, rename: str = "") -> list[Record]:
    """Volumes of constant HU: 100 times their number."""
    result = []
    for i in range(number):
        counts = np.histogram([100 * i] * 50, bins=HISTOGRAM_EDGES)[0]
        content = f"{(7919 * (i + 1)) % 10007:05d}"
        result.append(Record(key=f"{rename}{i}", shape=(100 + i, 200, 200), content=content, histogram=tuple(counts)))
    return result


def dataset_plans(**changes) -> DatasetPlans:
    defaults = {
        "spacing_mm": (3.0, 1.0, 1.0),
        "transpose": (0, 1, 2),
        "scheme": "CTNormalization",
        "use_mask_for_norm": True,
        "properties": {"mean": 5.0, "std": 2.0, "percentile_00_5": 1.0, "percentile_99_5": 9.0},
        "patch_size": (64, 128, 128),
        "architecture": plain_architecture((4, 8, 8, 8)),
        "modality": "CT",
    }
    return DatasetPlans(**{**defaults, **changes})


@pytest.mark.parametrize("number", range(2, 20))
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.95])
def test_split_gives_every_volume_one_role(number, fraction):
    training, validation = split_volumes(records(number), fraction=fraction, seed=1)
    assert sorted(training + validation) == sorted(record.key for record in records(number))
    assert training
    if fraction == 0 or number < 3:
        assert not validation
    else:
        assert len(validation) >= (2 if number >= 6 else 1)


def test_split_holds_out_the_given_share():
    assert len(split_volumes(records(200), fraction=0.1, seed=0)[1]) == 20


def test_split_depends_neither_on_order_nor_on_names(rng):
    volumes, renamed = records(12), records(12, rename="other")
    expected = split_volumes(volumes, fraction=0.25, seed=3)
    shuffled = [volumes[i] for i in rng.permutation(12)]
    assert split_volumes(shuffled, fraction=0.25, seed=3) == expected
    other = split_volumes(renamed, fraction=0.25, seed=3)
    assert tuple(tuple(key.removeprefix("other") for key in keys) for keys in other) == expected


def test_split_depends_on_the_seed():
    assert len({split_volumes(records(12), fraction=0.25, seed=seed)[1] for seed in range(8)}) > 3


STRIDES = [(8, 8, 8), (16, 16, 16), (32, 32, 32), (1, 16, 16), (4, 32, 32), (2, 8, 8)]
PATCHES = [(40, 56, 40), (128, 128, 128), (16, 320, 320), (64, 192, 160), (8, 16, 16)]
MEDIANS = [(36, 50, 35), (300, 300, 300), (20, 400, 400), (5, 5, 5)]


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("median", MEDIANS)
@pytest.mark.parametrize("grid", [(1, 3, 3), (2, 2, 2)])
def test_derived_crop_fits_the_network(stride, patch, median, grid):
    size = crop_size_for_patch(patch, stride=np.array(stride), grid=grid, median_shape=np.array(median))
    assert all(isinstance(n, int) for n in size)
    assert all(n > 0 and n % s == 0 for n, s in zip(size, stride, strict=True))
    assert np.prod(np.array(size) // stride) >= 2
    wanted = np.minimum(np.array(patch) / 2, np.array(median) / grid)
    assert (np.array(size) <= np.maximum(wanted + np.array(stride) / 2, 2 * np.array(stride))).all()


def test_crop_for_the_hippocampus_leaves_the_grid_within_the_volume():
    size = crop_size_for_patch(
        (40, 56, 40), stride=np.array((8, 8, 8)), grid=(1, 3, 3), median_shape=np.array((36, 50, 35))
    )
    assert size == (16, 16, 8)  # half a patch is 20 × 28 × 20, a third of the volume 50 and 35 in the plane
    check_input_size(plain_architecture((4, 8, 8, 8)), size)


def test_crop_of_an_anisotropic_plan_is_flat():
    size = crop_size_for_patch(
        (16, 320, 320), stride=np.array((4, 32, 32)), grid=(1, 3, 3), median_shape=np.array((30, 600, 600))
    )
    assert size == (8, 160, 160)


def test_half_a_patch_is_taken_where_volumes_are_large():
    size = crop_size_for_patch(
        (128, 128, 128), stride=np.array((32,) * 3), grid=(1, 3, 3), median_shape=np.array((500,) * 3)
    )
    assert size == (64, 64, 64)


@pytest.mark.parametrize(
    ("settings", "plans"),
    [
        ({}, None),
        ({"window": (-100.0, 300.0), "crop_size": (32, 64, 64), "features": (4, 8, 8)}, None),
        ({"features": (2, 4, 4, 4)}, dataset_plans()),
        ({}, dataset_plans(scheme="ZScoreNormalization", modality="any", transpose=(2, 0, 1))),
    ],
)
def test_plan_comes_back_as_it_was_saved(tmp_path, settings, plans):
    config = PretrainConfig(**settings)
    target = preprocessing_target(config, plans)
    plan = make_training_plan(config, records(8), target=target, plans=plans)
    plan.save(tmp_path / "plan.json")
    loaded = TrainingPlan.load(tmp_path / "plan.json")
    assert loaded == plan
    assert loaded.target.digest == target.digest


def test_statistics_come_from_training_volumes_only():
    plan = make_training_plan(PretrainConfig(), records(8), target=TARGET, plans=None)
    expected = np.mean([100 * int(key) for key in plan.training])
    assert len(plan.training) == 6
    assert plan.properties["mean"] == pytest.approx(expected, abs=2)


def test_plans_give_normalisation_network_and_spacing():
    config, plans = PretrainConfig(), dataset_plans(transpose=(2, 0, 1))
    target = preprocessing_target(config, plans)
    plan = make_training_plan(config, records(4), target=target, plans=plans)
    assert plan.properties == plans.properties
    assert plan.architecture == plans.architecture
    assert target == Target(spacing_mm=(3.0, 1.0, 1.0), transpose=(2, 0, 1))
    assert not target.use_mask_for_norm  # a CT is stored in HU


def test_window_replaces_the_plans_statistics():
    plan = make_training_plan(PretrainConfig(window=(-10.0, 90.0)), records(4), target=TARGET, plans=dataset_plans())
    assert (plan.properties["mean"], plan.properties["std"]) == (-10, 100)


def test_other_modalities_are_stored_normalised():
    target = preprocessing_target(PretrainConfig(), dataset_plans(scheme="ZScoreNormalization"))
    assert target.normalization == "ZScoreNormalization"
    assert target.use_mask_for_norm


def test_features_must_fit_the_plans_network():
    with pytest.raises(ValueError, match="3 counts were given, the network has 4 stages"):
        choose_architecture(PretrainConfig(features=(4, 8, 8)), dataset_plans(), median_shape=np.ones(3), volumes=2)


def test_scale_applies_to_the_plain_network_and_to_planned_ones_after_the_features():
    def features(plans, **settings):
        return choose_architecture(PretrainConfig(**settings), plans, median_shape=np.ones(3), volumes=2).features

    assert features(None, scale="H") == (64, 128, 256, 512, 640, 640)
    assert features(None, scale="L", features=(8, 16)) == (12, 24)
    assert features(dataset_plans(), scale="S") == (2, 4, 4, 4)
    with pytest.raises(ValueError, match="this one is residual"):
        features(dataset_plans(architecture=residual_architecture((4, 8), (1, 1))), scale="L")


def test_crop_size_must_fit_the_network():
    for size in ((48, 64, 64), (32, 32, 32)):
        with pytest.raises(ValueError, match="crop size"):
            make_training_plan(PretrainConfig(crop_size=size), records(4), target=TARGET, plans=None)


@pytest.mark.parametrize(
    ("spacing", "crop", "isotropic"),
    [((5.0, 1.0, 1.0), (16, 64, 64), True), ((1.0, 1.0, 1.2), (64,) * 3, False), ((1.0,) * 3, (32, 32, 64), False)],
)
def test_crops_are_turned_only_in_isotropic_planes(spacing, crop, isotropic):
    config = PretrainConfig(crop_size=crop, features=(4, 8, 8))
    plan = make_training_plan(config, records(4), target=Target(spacing_mm=spacing), plans=None)
    assert plan.isotropic_plane is isotropic
