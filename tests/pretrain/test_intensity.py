import numpy as np
import pytest
from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization

from nnunetv2_voco.pretrain.intensity import body_properties, ct_intensity, stored_intensity, window_properties
from nnunetv2_voco.pretrain.preprocess import HISTOGRAM_EDGES

PROPERTIES = {"mean": 90.3, "std": 141.7, "percentile_00_5": -812.0, "percentile_99_5": 961.5}


def histogram(voxels: np.ndarray) -> tuple[int, ...]:
    return tuple(np.histogram(voxels, bins=HISTOGRAM_EDGES)[0])


def test_ct_is_normalised_as_by_nnunet(rng):
    stored = rng.integers(-32768, 32768, (7, 20, 30)).astype(np.int16)
    expected = CTNormalization(use_mask_for_norm=False, intensityproperties=PROPERTIES).run(stored)
    values = ct_intensity(PROPERTIES)(stored)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, expected)


def test_views_that_are_not_contiguous_are_normalised_in_place(rng):
    stored = rng.integers(-1024, 3072, (6, 8, 10)).astype(np.int16)
    intensity = ct_intensity(PROPERTIES)
    np.testing.assert_array_equal(intensity(stored[::2, 1:, 2:7]), intensity(stored)[::2, 1:, 2:7])


def test_window_spans_the_normalised_values():
    intensity = ct_intensity(PROPERTIES)
    expected = [(PROPERTIES[name] - 90.3) / 141.7 for name in ("percentile_00_5", "percentile_99_5")]
    np.testing.assert_allclose(intensity.window, expected, rtol=1e-6)


def test_hu_window_becomes_zero_to_one():
    intensity = ct_intensity(window_properties((-175.0, 250.0)))
    values = intensity(np.array([-1024, -175, 37, 250, 3071], np.int16))
    np.testing.assert_allclose(values, [0, 0, 212 / 425, 1, 1], atol=1e-6)
    assert intensity.window == (0, 1)


def test_stored_thousandths_are_read_back():
    stored = np.array([-32768, -1500, 0, 1, 32767], np.int16)
    np.testing.assert_allclose(stored_intensity("ZScoreNormalization")(stored), stored / 1000, rtol=1e-6)
    assert stored_intensity("RescaleTo01Normalization").window == (0, 1)


def test_body_statistics_are_those_of_the_voxels(rng):
    voxels = np.concatenate([rng.normal(40, 60, 60_000), rng.normal(-800, 70, 40_000)])
    voxels = np.clip(np.rint(voxels), -1024, 3071).astype(int)
    properties = body_properties([histogram(voxels)])
    assert properties["mean"] == pytest.approx(voxels.mean(), abs=2)
    assert properties["std"] == pytest.approx(voxels.std(), abs=2)
    for name, share in (("percentile_00_5", 0.5), ("percentile_99_5", 99.5), ("median", 50)):
        assert properties[name] == pytest.approx(np.percentile(voxels, share), abs=4)


def test_statistics_of_bin_centres_are_exact():
    voxels = np.array([-1023.5 + 1 - 1e-9] * 3 + [2.0, 3.0])
    properties = body_properties([histogram(voxels)])
    centres = (HISTOGRAM_EDGES[:-1] + HISTOGRAM_EDGES[1:]) / 2
    nearest = np.array([centres[np.abs(centres - v).argmin()] for v in voxels])
    assert properties["mean"] == pytest.approx(nearest.mean(), abs=1e-3)


def test_volumes_count_alike_whatever_their_size(rng):
    small, large = np.full(100, 0), np.full(100_000, 1000)
    assert body_properties([histogram(small), histogram(large)])["mean"] == pytest.approx(500, abs=2)


def test_extreme_values_are_counted():
    assert sum(histogram(np.array([-1024, 3071]))) == 2


def test_properties_are_those_that_plans_hold():
    names = {"max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"}
    assert set(window_properties((-1000.0, 500.0))) == names
    assert set(body_properties([histogram(np.arange(100))])) == names
