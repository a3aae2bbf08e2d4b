import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from nnunetv2_voco.pretrain.preprocess import nearest, resample


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_linear_equals_interpolation_in_three_dimensions(rng, dtype):
    volume = (1000 * rng.normal(size=(7, 9, 8))).astype(dtype)
    image, grid = sitk.GetImageFromArray(volume), sitk.Image([15, 5, 11], sitk.sitkUInt8)
    grid.SetOrigin((0.0, -0.3, -0.4))
    grid.SetSpacing((0.5, 2.1, 0.68))
    zyx = [o + s * np.arange(n) for o, s, n in zip((-0.4, -0.3, 0), (0.68, 2.1, 0.5), (11, 5, 15), strict=True)]
    truth = ndimage.map_coordinates(
        volume.astype(float), np.meshgrid(*zyx, indexing="ij"), order=1, mode="nearest", output=float
    )
    values = sitk.GetArrayFromImage(resample(image, grid))
    np.testing.assert_allclose(values, truth, atol=1e-3)


def test_voxels_themselves_are_not_changed(rng):
    volume = rng.integers(-1024, 3072, (7, 9, 8)).astype(np.int16)
    grid = sitk.Image([7, 8, 6], sitk.sitkUInt8)
    grid.SetOrigin((1.0, 1.0, 1.0))
    image = sitk.GetImageFromArray(volume)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(resample(image, grid)), volume[1:, 1:, 1:])
    np.testing.assert_array_equal(nearest(image, grid), volume[1:, 1:, 1:])


@pytest.mark.parametrize("shift", [0.0, 1e-9, 4e-6, 1e-3, 0.5, -1.0, 1.0, 1e6])
@pytest.mark.parametrize("stretch", [1.0, 1 + 1e-9, 1.001])
def test_grids_that_are_nearly_the_images_own_give_interpolated_values_too(rng, shift, stretch):
    volume = rng.integers(-1024, 3072, (7, 9, 8)).astype(np.int16)
    image, grid = sitk.GetImageFromArray(volume), sitk.Image([6, 7, 5], sitk.sitkUInt8)
    image.SetSpacing((1.5, 1.5, 1.5))
    image.SetOrigin((-100.1, 33.3, 1 / 3))
    grid.SetSpacing((1.5 * stretch,) * 3)
    grid.SetOrigin([o + 1.5 * (1 + shift) for o in image.GetOrigin()])
    zyx = [1 + shift + stretch * np.arange(n) for n in (5, 7, 6)]
    truth = ndimage.map_coordinates(
        volume.astype(float), np.meshgrid(*zyx, indexing="ij"), order=1, mode="nearest", output=float
    )
    values = sitk.GetArrayFromImage(resample(image, grid))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, truth, atol=0.1)


@pytest.mark.parametrize("number", range(6))
def test_nearest_voxels_are_those_of_simpleitk(rng, number):
    image = sitk.GetImageFromArray(rng.integers(0, 255, (7, 9, 8)).astype(np.uint8))
    image.SetOrigin(rng.normal(size=3).tolist())
    image.SetSpacing(rng.uniform(0.5, 4, 3).tolist())
    grid = sitk.Image([31, 17, 23], sitk.sitkUInt8)
    grid.SetOrigin((np.array(image.GetOrigin()) + rng.uniform(-3, 3, 3)).tolist())  # in part beyond the rim
    grid.SetSpacing(rng.uniform(0.3, 2, 3).tolist())
    truth = sitk.ResampleImageFilter()
    truth.SetReferenceImage(grid)
    truth.SetInterpolator(sitk.sitkNearestNeighbor)
    truth.UseNearestNeighborExtrapolatorOn()
    np.testing.assert_array_equal(nearest(image, grid), sitk.GetArrayFromImage(truth.Execute(image)))


def test_a_single_voxel_counts_everywhere_along_its_axis(rng):
    volume = rng.normal(size=(1, 3, 1)).astype(np.float32)
    grid = sitk.Image([2, 3, 2], sitk.sitkUInt8)
    grid.SetOrigin((-0.3, 0.0, -0.4))
    grid.SetSpacing((0.7, 1.0, 0.7))
    values = sitk.GetArrayFromImage(resample(sitk.GetImageFromArray(volume), grid))
    np.testing.assert_allclose(values, np.broadcast_to(volume, (2, 3, 2)), rtol=1e-6)
