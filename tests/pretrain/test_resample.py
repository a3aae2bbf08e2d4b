import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from nnunetv2_voco.pretrain.resample import linear_planes, nearest_planes

SHAPE = (7, 9, 8)
POSITIONS = (np.linspace(-0.4, 6.4, 11), np.linspace(-0.3, 8.45, 5), 0.5 * np.arange(15))


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_linear_equals_interpolation_in_three_dimensions(rng, dtype):
    volume = (1000 * rng.normal(size=SHAPE)).astype(dtype)
    truth = map_coordinates(
        volume.astype(float), np.meshgrid(*POSITIONS, indexing="ij"), order=1, mode="nearest", output=float
    )
    planes = np.stack(list(linear_planes(volume, POSITIONS)))
    assert planes.dtype == np.float32
    np.testing.assert_allclose(planes, truth, atol=1e-3)


def test_voxels_themselves_are_not_changed(rng):
    volume = rng.integers(-1024, 3072, SHAPE).astype(np.int16)
    onto_voxels = tuple(np.arange(1.0, size) for size in SHAPE)
    np.testing.assert_array_equal(list(linear_planes(volume, onto_voxels)), volume[1:, 1:, 1:])


def test_a_single_voxel_counts_everywhere_along_its_axis(rng):
    volume = rng.normal(size=(1, 3, 1)).astype(np.float32)
    planes = np.stack(list(linear_planes(volume, (np.array([-0.4, 0.3]), np.arange(3.0), np.array([0.0, 0.4])))))
    np.testing.assert_allclose(planes, np.broadcast_to(volume, (2, 3, 2)), rtol=1e-6)


def test_planes_may_be_written_to_without_changing_those_that_follow(rng):
    volume = rng.normal(size=SHAPE).astype(np.float32)
    untouched = np.stack(list(linear_planes(volume, POSITIONS)))
    for plane, expected in zip(linear_planes(volume, POSITIONS), untouched, strict=True):
        np.testing.assert_array_equal(plane, expected)
        plane[...] = 99
    assert volume.max() < 99


def test_nearest_takes_the_second_of_two_equally_near_voxels_whatever_the_rounding():
    volume = np.arange(4)[:, None, None] * np.ones((1, 2, 2), int)
    at = np.array([-0.4, 0.4, 0.5 - 1e-9, 0.5, 1.5 + 1e-9, 3.6])
    planes = np.stack(list(nearest_planes(volume, (at, np.arange(2.0), np.arange(2.0)))))
    np.testing.assert_array_equal(planes[:, 0, 0], [0, 0, 1, 1, 2, 3])


def test_nearest_equals_indexing_by_rounded_positions(rng):
    volume = rng.random(SHAPE) > 0.5
    rounded = np.ix_(
        *(np.clip(np.rint(at + 1e-3).astype(int), 0, n - 1) for at, n in zip(POSITIONS, SHAPE, strict=True))
    )
    np.testing.assert_array_equal(list(nearest_planes(volume, POSITIONS)), volume[rounded])
