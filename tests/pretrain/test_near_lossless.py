import hashlib
import json
from dataclasses import asdict

import numpy as np
import pytest

from nnunetv2_voco.pretrain.cache import VolumeCache
from nnunetv2_voco.pretrain.config import PretrainConfig
from nnunetv2_voco.pretrain.near_lossless import quantise, restore
from nnunetv2_voco.pretrain.preprocess import AIR_HU, HIGHEST_HU, Target
from nnunetv2_voco.pretrain.training_plan import preprocessing_target
from tests.pretrain.test_training_plan import dataset_plans
from tests.pretrain.volumes import prepared_volume

EVERY_HU = np.arange(AIR_HU, HIGHEST_HU + 1, dtype=np.int16)


@pytest.mark.parametrize("bound", [0, 1, 2, 3, 8, 50])
def test_error_is_within_the_bound_for_every_value_and_reaches_it(bound):
    error = np.abs(restore(quantise(EVERY_HU, bound), bound).astype(int) - EVERY_HU)
    assert error.max() == bound
    assert error[0] == 0  # air stays air


@pytest.mark.parametrize("bound", [0, 1, 2])
def test_cached_volume_is_within_the_bound(tmp_path, rng, bound):
    cache = VolumeCache(tmp_path, Target(spacing_mm=(1.0, 1.0, 1.0), lossy=bound))
    volume = prepared_volume(rng, (20, 70, 33))
    before = volume.array.copy()
    record = cache.write({}, volume, key="ab12")
    np.testing.assert_array_equal(volume.array, before)
    opened = cache.open(record)
    read = opened.read((0, 0, 0), record.shape)
    assert read.dtype == np.int16
    assert np.abs(read.astype(int) - before).max() == bound
    padded = opened.read((-4, 60, 0), (10, 20, 33))  # beyond the volume
    assert (padded[:4] == AIR_HU).all()
    assert (padded[:, 10:] == AIR_HU).all()
    np.testing.assert_array_equal(padded[4:, :10], read[:6, 60:70])


def test_a_bound_makes_noise_smaller(tmp_path, rng):
    volume = prepared_volume(rng, (32, 64, 64))
    volume.array[:] = np.rint(rng.normal(40, 15, volume.array.shape))
    sizes = [
        VolumeCache(tmp_path, Target(spacing_mm=(1.0, 1.0, 1.0), lossy=bound)).write({}, volume, key="ab").bytes
        for bound in (0, 1, 2, 4)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] < 0.85 * sizes[0]


def test_bounds_do_not_mix_and_lossless_caches_keep_their_name():
    digests = {Target(spacing_mm=(1.5, 1.5, 1.5), lossy=bound).digest for bound in (0, 1, 2)}
    assert len(digests) == 3
    fields = {**asdict(Target(spacing_mm=(1.5, 1.5, 1.5))), "spacing_mm": [1.5, 1.5, 1.5]}
    del fields["lossy"]  # as before there was a bound
    before = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]
    assert Target(spacing_mm=(1.5, 1.5, 1.5)).digest == before


def test_bound_is_part_of_what_a_run_asks_for():
    assert preprocessing_target(PretrainConfig(lossy=2), None).lossy == 2
    assert preprocessing_target(PretrainConfig(lossy=2), dataset_plans()).lossy == 2
    with pytest.raises(ValueError, match="lossy -1"):
        PretrainConfig(lossy=-1)


def test_bound_in_hu_is_refused_for_volumes_that_are_not_in_hu():
    with pytest.raises(ValueError, match="lossy 2: .*ZScoreNormalization"):
        preprocessing_target(PretrainConfig(lossy=2), dataset_plans(scheme="ZScoreNormalization"))
