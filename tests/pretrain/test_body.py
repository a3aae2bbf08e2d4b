import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from nnunetv2_voco.pretrain.body import dilate, fill_slices


@pytest.mark.parametrize("radius", [(0, 2, 2), (1, 1, 1), (1, 3, 2), (0, 0, 0), (0, 5, 4)])
def test_dilation_is_that_of_itk(rng, radius):
    mask = rng.random((9, 20, 21)) > 0.97
    itk = sitk.BinaryDilate(sitk.GetImageFromArray(mask.astype(np.uint8)), radius[::-1], sitk.sitkBall)
    np.testing.assert_array_equal(dilate(mask, radius), sitk.GetArrayFromImage(itk))


def test_holes_are_filled_slice_by_slice(rng):
    mask = rng.random((6, 24, 23)) > 0.55  # all sides show tissue: they are closed
    framed = np.pad(mask, [(0, 0), (1, 1), (1, 1)], constant_values=True)
    expected = np.array([ndimage.binary_fill_holes(section) for section in framed])[:, 1:-1, 1:-1]
    np.testing.assert_array_equal(fill_slices(mask), expected)
    sparse = rng.random((6, 24, 23)) > 0.8
    expected = np.array([ndimage.binary_fill_holes(section) for section in sparse])
    assert (expected != sparse).any()
    np.testing.assert_array_equal(fill_slices(sparse), expected)
