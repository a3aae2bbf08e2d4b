from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from nnunetv2_voco.pretrain.augment import crop_transforms
from nnunetv2_voco.pretrain.cache import Record
from nnunetv2_voco.pretrain.crops import BodyMap
from nnunetv2_voco.pretrain.dataset import CropPlan
from nnunetv2_voco.pretrain.intensity import stored_intensity
from nnunetv2_voco.pretrain.loss import intra_volume_loss
from nnunetv2_voco.pretrain.model import dropout_mask
from nnunetv2_voco.pretrain.precision import autocast_context
from nnunetv2_voco.pretrain.validation import (
    CROPS_PER_REGION,
    REGIONS,
    Validation,
    Validator,
)

CPU = torch.device("cpu")
PLAN = CropPlan(grid=(1, 3, 3), size_vox=(8, 8, 8), random_crops=2, min_body_crop=0.0, min_body_base=0.0)
SHAPE = (12, 40, 40)


class Ramp:
    """A volume whose voxels are their own place: 100 y + x."""

    def __init__(self, number: int) -> None:
        self.record = Record(key=str(number), shape=SHAPE)
        self.body = BodyMap(np.ones([-(-n // 8) for n in SHAPE]), 8)

    def read(self, corner, shape) -> np.ndarray:
        _, y, x = np.indices(tuple(int(n) for n in shape)) + np.reshape(np.asarray(corner), (3, 1, 1, 1))
        return (100 * y + x).astype(np.int16)


class Cache:
    def __init__(self, number: int) -> None:
        self.volumes = {str(i): Ramp(i) for i in range(number)}
        self.records = [volume.record for volume in self.volumes.values()]

    def open(self, record: Record) -> Ramp:
        return self.volumes[record.key]


class Encoder(nn.Module):
    """Embeds a crop by a function of its corner (y, x)."""

    def __init__(self, embed) -> None:
        super().__init__()
        self.embed = embed

    def forward(self, crops: torch.Tensor) -> list[torch.Tensor]:
        corners = torch.round(crops[:, 0, 0, 0, 0] * 1000)
        return [self.embed(corners // 100, corners % 100)[:, :, None, None, None]]


class Model(nn.Module):
    def __init__(self, embed) -> None:
        super().__init__()
        self.encoder = Encoder(embed)
        self.student, self.teacher = nn.Identity(), nn.Identity()


def bumps(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Similar where near: a smooth bump over (y, x)."""
    at = torch.arange(0, 48)
    rows, columns = (torch.exp(-((at - centre[:, None]) ** 2) / 30) for centre in (y, x))
    return (rows[:, :, None] * columns[:, None, :]).flatten(1)


def constant(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(y), 5)


def random_directions(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.randn(len(y), 64, generator=torch.Generator().manual_seed(int(y.sum() * 100 + x.sum())))


def make_validator(
    volumes: int = 2, seed: int = 0, volumes_per_batch: int = 4, dropout: tuple[str, float] = ("element", 0.0)
) -> Validator:
    cache = Cache(volumes)
    return Validator(
        cache,
        cache.records,
        plan=PLAN,
        intensity=stored_intensity("NoNormalization"),
        transform=crop_transforms(shift_amplitude=0.0, isotropic_plane=True),
        seed=seed,
        dropout=dropout,
        volumes_per_batch=volumes_per_batch,
    )


def measure(embed, volumes: int = 2, seed: int = 0) -> tuple[Validation, np.ndarray]:
    return make_validator(volumes, seed).measure(Model(embed), CPU, lambda: autocast_context("fp32", CPU))


@pytest.fixture(scope="module")
def perfect() -> Validation:
    return measure(bumps)[0]


def test_embedding_that_knows_the_place_is_always_right(perfect: Validation):
    assert perfect.accuracy > 0.95  # of two equally large overlaps either may be the nearer one
    assert perfect.positives > perfect.negatives + 0.3
    assert perfect.intra < perfect.chance_constant


def test_embedding_that_knows_the_place_is_right_across_volumes_too(perfect: Validation):
    assert perfect.accuracy_across == pytest.approx(perfect.accuracy, abs=0.15)


@pytest.mark.parametrize("kind", ["element", "crop"])
def test_loss_is_that_of_training_with_dropout_on_crops_that_are_left_and_the_rest_without(
    kind: str, perfect: Validation
):
    validator = make_validator(dropout=(kind, 0.5))
    dropped, _ = validator.measure(Model(bumps), CPU, lambda: autocast_context("fp32", CPU))
    assert replace(dropped, intra=perfect.intra) == perfect
    losses = []
    for number, (*_, sample) in enumerate(validator.samples(augmented=False)):
        embedded = Encoder(bumps)(sample.crops)[0].flatten(1)
        rows = np.arange(len(embedded)) + number * len(embedded)
        mask = dropout_mask((REGIONS * len(embedded), embedded.shape[1]), kind=kind, p=0.5, seed=(0, 4), device=CPU)
        crops, bases = (embedded * mask[rows])[:CROPS_PER_REGION], embedded[CROPS_PER_REGION:]
        left = crops.abs().sum(1) > 0
        if left.any():
            overlaps, valid = sample.overlaps[left], sample.bases_valid
            losses.append(float(intra_volume_loss(crops[None, left], bases[None], overlaps[None], valid[None])))
    assert dropped.intra == pytest.approx(np.mean(losses), rel=1e-5)
    assert dropped.intra != perfect.intra


def test_a_crop_is_left_to_measure_however_many_drop_out():
    validator = make_validator(dropout=("crop", 0.9999))
    dropped, _ = validator.measure(Model(bumps), CPU, lambda: autocast_context("fp32", CPU))
    assert np.isfinite(dropped.intra)


class Dropped(nn.Module):
    """A projector for which a dropped crop moves all others, as batch statistics do, and makes them wrong if absent."""

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        whole = embeddings.abs().sum(1) > 0
        return embeddings if not whole.all() else torch.ones_like(embeddings)


def test_projector_sees_the_dropped_crops_as_in_training(perfect: Validation):
    model = Model(bumps)
    model.student = Dropped()
    autocast = lambda: autocast_context("fp32", CPU)  # noqa: E731
    assert make_validator(dropout=("crop", 0.5)).measure(model, CPU, autocast)[0].intra < perfect.chance_constant
    assert make_validator(dropout=("crop", 0.0)).measure(model, CPU, autocast)[0].intra > perfect.chance_constant


class Rows(nn.Module):
    """Hands embeddings on and notes how many came at once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(embeddings))
        return embeddings


@pytest.mark.parametrize("volumes_per_batch", [1, 3, 5, 1000])
def test_projectors_see_as_many_volumes_at_once_as_in_training_and_each_region_counts_once(
    volumes_per_batch: int, perfect: Validation
):
    model = Model(bumps)
    model.student = Rows()
    validator = make_validator(volumes_per_batch=volumes_per_batch)
    figures, _ = validator.measure(model, CPU, lambda: autocast_context("fp32", CPU))
    crops_of_a_region = CROPS_PER_REGION + 9
    assert set(model.student.seen) == {min(volumes_per_batch, REGIONS) * crops_of_a_region}
    assert figures == perfect  # this projector has no batch statistics, so the order in which it works is no matter


def test_constant_embedding_is_as_good_as_a_blind_guess():
    figures, right = measure(constant)
    assert figures.accuracy == pytest.approx(figures.blind, abs=0.1)
    assert figures.spread == pytest.approx(0, abs=1e-3)
    assert figures.intra > figures.chance_constant
    assert figures.positives == pytest.approx(1) == figures.negatives
    assert right.mean() == pytest.approx(figures.accuracy)


def test_random_embedding_is_as_good_as_a_blind_guess_and_fills_all_directions():
    figures, _ = measure(random_directions, volumes=3)
    assert figures.accuracy == pytest.approx(figures.blind, abs=0.1)
    assert figures.spread == pytest.approx(1, abs=0.1)


def test_chance_levels_are_those_of_the_grid(perfect: Validation):
    assert perfect.blind == pytest.approx(1 / 9)
    assert perfect.chance_constant == pytest.approx(0.583, abs=0.1)
    assert perfect.chance_zero > perfect.chance_constant
    assert perfect.crops % CROPS_PER_REGION == 0


def test_single_volume_has_no_accuracy_across_volumes():
    assert measure(constant, volumes=1)[0].accuracy_across is None


def test_same_crops_are_measured_every_time_whatever_the_global_random_state():
    validator = make_validator()
    first = list(validator.samples(augmented=True))
    torch.manual_seed(99)
    np.random.seed(99)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    second = list(validator.samples(augmented=True))
    for (_, _, corner, a), (_, _, other, b) in zip(first, second, strict=True):
        assert np.array_equal(corner, other)
        assert torch.equal(a.crops, b.crops)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


def test_regions_of_different_volumes_lie_at_the_same_place():
    corners: dict[int, list] = {0: [], 1: []}
    for volume, _, corner, _ in make_validator().samples(augmented=False):
        corners[volume].append(corner.tolist())
    assert corners[0] == corners[1]


def test_predictions_are_similarities_in_the_order_of_the_samples():
    validator = make_validator()
    predicted = validator.predict(Model(bumps), CPU, lambda: autocast_context("fp32", CPU))
    samples = [sample for *_, sample in validator.samples(augmented=False)]
    assert predicted.shape == (len(samples), CROPS_PER_REGION, 9)
    pairs = zip(predicted, samples, strict=True)
    correlations = [np.corrcoef(p.ravel(), s.overlaps.numpy().ravel())[0, 1] for p, s in pairs]
    assert min(correlations) > 0.5
