import numpy as np
import pytest
import torch

from nnunetv2_voco.pretrain.augment import crop_transforms
from nnunetv2_voco.pretrain.dataset import (
    CropPlan,
    PretrainDataset,
    StepSampler,
    draw_layout,
    make_loader,
    make_sample,
)
from nnunetv2_voco.pretrain.intensity import ct_intensity, window_properties
from nnunetv2_voco.pretrain.volume_order import VolumeOrder
from tests.pretrain.volumes import filled_cache, prepared_volume

PLAN = CropPlan(grid=(1, 2, 3), size_vox=(8, 16, 16), random_crops=3, min_body_crop=0.2, min_body_base=0.05)
SHAPES = [(20, 40, 60), (6, 50, 50), (30, 20, 70), (8, 32, 48), (5, 9, 9)]
INTENSITY = ct_intensity(window_properties((-1024.0, 3071.0)))


@pytest.fixture
def filled(tmp_path, rng):
    return filled_cache(tmp_path / "cache", rng, SHAPES)


@pytest.fixture
def dataset(filled) -> PretrainDataset:
    cache, records, _ = filled
    transform = crop_transforms(shift_amplitude=0.1, isotropic_plane=True)
    return PretrainDataset(cache, records, plan=PLAN, intensity=INTENSITY, transform=transform, seed=3)


def equal(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def steps(**kwargs) -> list[list[int]]:
    return list(StepSampler(**{"first_step": 0, "steps": 6, "batch_size": 2, "rank": 0, "world_size": 1, **kwargs}))


def test_sample_has_the_promised_shapes(dataset):
    sample = dataset[0]
    assert sample.crops.shape == (3 + 6, 1, 8, 16, 16)
    assert sample.crops.dtype == sample.overlaps.dtype == torch.float32
    assert sample.overlaps.shape == (3, 6)
    torch.testing.assert_close(sample.overlaps.sum(dim=1), torch.ones(3))
    assert sample.bases_valid.shape == (6,)
    assert sample.bases_valid.dtype == torch.bool
    assert torch.isfinite(sample.crops).all()


def test_crops_without_augmentation_are_those_of_the_volume(filled, rng):
    cache, records, volumes = filled
    for record, volume in zip(records, volumes, strict=True):
        opened = cache.open(record)
        layout = draw_layout(rng, opened, PLAN)
        sample = make_sample(opened, layout, PLAN, INTENSITY, None)
        margin = 100
        padded = np.pad(volume.array, margin, constant_values=-1024)
        for crop, corner in zip(sample.crops, np.concatenate([layout.crops_T3, layout.bases_B3]), strict=True):
            start = corner + layout.region_corner + margin
            box = tuple(slice(c, c + n) for c, n in zip(start, PLAN.size_vox, strict=True))
            np.testing.assert_allclose(crop[0], (padded[box] + 1024) / 4095, atol=1e-6)


def test_overlapping_crops_share_their_voxels(filled, rng):
    cache, records, _ = filled
    opened = cache.open(records[0])
    layout = draw_layout(rng, opened, PLAN)
    sample = make_sample(opened, layout, PLAN, INTENSITY, None)
    for t in range(PLAN.random_crops):
        mine = set(sample.crops[t].flatten().tolist())
        for b in range(6):
            theirs = set(sample.crops[PLAN.random_crops + b].flatten().tolist())
            if layout.overlaps_TB[t, b] == 1:
                assert mine == theirs
    assert layout.bases_valid_B.all()


def test_augmenting_one_crop_leaves_the_others_alone(filled, rng):
    cache, records, _ = filled
    opened = cache.open(records[0])
    layout = draw_layout(rng, opened, PLAN)
    plain = make_sample(opened, layout, PLAN, INTENSITY, None).crops
    flips = crop_transforms(shift_amplitude=0, isotropic_plane=True, p_flip=0.5, p_rotate=0.5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        augmented = make_sample(opened, layout, PLAN, INTENSITY, flips).crops
    assert not torch.equal(plain, augmented)
    assert torch.equal(plain.flatten(1).sort().values, augmented.flatten(1).sort().values)


def test_bases_of_padding_are_not_valid(filled, rng):
    cache, records, _ = filled
    layout = draw_layout(rng, cache.open(records[4]), PLAN)
    assert 1 <= layout.bases_valid_B.sum() < 6


def test_same_number_gives_the_same_sample_whatever_was_drawn_before(dataset):
    first = [dataset[i] for i in range(8)]
    torch.rand(3)
    np.random.rand(3)  # a trainer may draw from the global generators in between
    again = [dataset[i] for i in reversed(range(8))][::-1]
    assert all(equal(a, b) for a, b in zip(first, again, strict=True))
    assert not equal(first[0], first[5])


def test_another_seed_gives_other_samples(filled, dataset):
    other = PretrainDataset(filled[0], filled[1], plan=PLAN, intensity=INTENSITY, transform=dataset.transform, seed=4)
    assert not equal(dataset[0], other[0])


def test_drawing_samples_leaves_the_global_generators_alone(dataset):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    dataset[0]
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])


def test_samples_are_those_of_runs_that_were_started_with_two_words_of_the_seed(filled, dataset):
    cache, records, _ = filled
    state = np.random.SeedSequence((3, 2))
    volume = cache.open(records[dataset.order[2]])
    layout = draw_layout(np.random.default_rng(state), volume, PLAN)
    with torch.random.fork_rng(devices=[]):
        numpy_state = np.random.get_state()
        torch_seed, numpy_seed = state.generate_state(2)
        torch.manual_seed(int(torch_seed))
        np.random.seed(numpy_seed)
        expected = make_sample(volume, layout, PLAN, INTENSITY, dataset.transform)
        np.random.set_state(numpy_state)
    assert equal(dataset[2], expected)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_batches(dataset, workers):
    sampler = StepSampler(first_step=1, steps=4, batch_size=3, rank=0, world_size=1)
    alone = list(make_loader(dataset, sampler, num_workers=0, pin_memory=False))
    helped = list(make_loader(dataset, sampler, num_workers=workers, pin_memory=False))
    assert len(alone) == len(helped) == 3
    assert all(equal(a, b) for a, b in zip(alone, helped, strict=True))
    assert alone[0].crops.shape == (3, 9, 1, 8, 16, 16)
    assert equal(type(alone[0])(*(field[1] for field in alone[0])), dataset[4])


@pytest.mark.parametrize("volumes", [1, 2, 5, 13])
def test_every_volume_comes_once_in_each_pass(volumes):
    passes = [[VolumeOrder(volumes, 7)[p * volumes + i] for i in range(volumes)] for p in range(6)]
    assert all(sorted(one) == list(range(volumes)) for one in passes)
    if volumes >= 5:
        assert len({tuple(one) for one in passes}) > 1


def test_all_ranks_together_take_what_one_process_takes_with_the_larger_batch():
    ranks = [steps(rank=rank, world_size=3, batch_size=2) for rank in range(3)]
    together = [sum(batches, []) for batches in zip(*ranks, strict=True)]
    assert together == steps(batch_size=6)


def test_steps_take_consecutive_numbers():
    assert sum(steps(batch_size=4), []) == list(range(24))


def test_resumed_sampler_goes_on_where_the_other_stopped():
    whole = steps()
    assert steps(first_step=4) == whole[4:]
    assert steps(first_step=6) == []
    assert len(StepSampler(first_step=4, steps=6, batch_size=2, rank=0, world_size=1)) == 2
    assert len(StepSampler(first_step=9, steps=6, batch_size=2, rank=0, world_size=1)) == 0


def test_time_of_a_region_does_not_need_the_whole_map(tmp_path, rng):
    cache, (record,), _ = filled_cache(tmp_path, rng, [(16, 600, 600)])
    layout = draw_layout(rng, cache.open(record), PLAN)
    assert layout.bases_valid_B.all()


def test_mostly_empty_volumes_give_crops_with_body(tmp_path, rng):
    cache, _, _ = filled_cache(tmp_path, rng, [])
    body = np.zeros((16, 64, 96), bool)
    body[:, :24, :32] = True
    record = cache.write({}, prepared_volume(rng, body.shape, body=body), key="ab12")
    opened = cache.open(record)
    shares = []
    for _ in range(60):
        layout = draw_layout(rng, opened, PLAN)
        for corner in layout.crops_T3 + layout.region_corner:
            z, y, x = corner
            shares.append(body[z : z + 8, y : y + 16, x : x + 16].mean())
    assert np.mean(np.array(shares) >= 0.1) > 0.8  # the richest of too few candidates may be empty
