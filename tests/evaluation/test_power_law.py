import numpy as np
import pytest
from scipy.optimize import curve_fit

from nnunetv2_voco.evaluation.power_law import bootstrap_power_law, fit_power_law, interval

LAWS = [(0.3, 2.0, 0.5), (0.0, 5.0, 0.25), (0.45, 40.0, 1.2)]


def law(x: np.ndarray, floor: float, amplitude: float, exponent: float) -> np.ndarray:
    return floor + amplitude * x**-exponent


@pytest.mark.parametrize(("floor", "amplitude", "exponent"), LAWS)
def test_known_laws_are_found(floor: float, amplitude: float, exponent: float) -> None:
    x = np.geomspace(10, 5000, 7)
    found = fit_power_law(x, law(x, floor, amplitude, exponent))
    assert found.exponent[0] == pytest.approx(exponent, rel=0.02)
    assert found.floor[0] == pytest.approx(floor, abs=0.03)
    gain = law(5000, floor, amplitude, exponent) - law(10_000, floor, amplitude, exponent)
    assert found.gain_of_doubling(5000)[0] == pytest.approx(gain, rel=0.05)


def test_fit_is_that_of_a_general_least_squares_solver(rng: np.random.Generator) -> None:
    x = np.geomspace(10, 5000, 9)
    y = law(x, 0.3, 2.0, 0.6) + rng.normal(0, 0.01, 9)
    expected, _ = curve_fit(law, x, y, p0=(0.3, 2.0, 0.6))
    found = fit_power_law(x, y)
    assert (found.floor[0], found.exponent[0]) == pytest.approx((expected[0], expected[2]), rel=0.02)


def test_many_data_sets_are_fitted_as_each_alone(rng: np.random.Generator) -> None:
    x = np.geomspace(1, 100, 6)
    y = rng.uniform(0, 1, (5, 6))
    together = fit_power_law(x, y)
    for row in range(5):
        alone = fit_power_law(x, y[row])
        assert alone.floor[0] == together.floor[row]
        assert alone.exponent[0] == together.exponent[row]


def test_rising_and_constant_measurements_have_no_trend() -> None:
    x = np.geomspace(1, 100, 6)
    for y in (np.linspace(0.2, 0.7, 6), np.full(6, 0.4)):
        found = fit_power_law(x, y)
        assert found.amplitude[0] == pytest.approx(0, abs=1e-9)
        assert found.gain_of_doubling(100)[0] == pytest.approx(0, abs=1e-9)
        assert found.floor[0] == pytest.approx(y.mean())


def test_intervals_hold_the_truth_about_as_often_as_they_say(rng: np.random.Generator) -> None:
    x = np.geomspace(10, 2000, 8)
    truth = law(2000.0, 0.3, 2.0, 0.5) - law(4000.0, 0.3, 2.0, 0.5)
    held = 0
    for _ in range(40):
        y = law(x, 0.3, 2.0, 0.5) + rng.normal(0, 0.01, 8)
        low, high = interval(bootstrap_power_law(x, y, rng=rng, samples=200).gain_of_doubling(2000))
        held += low <= truth <= high
    assert held >= 34


def test_noise_widens_the_interval_and_a_seed_repeats_it() -> None:
    x = np.geomspace(10, 2000, 8)
    noise = np.random.default_rng(5).normal(0, 1, 8)

    def width(scale: float) -> float:
        y = law(x, 0.3, 2.0, 0.5) + scale * noise
        low, high = interval(bootstrap_power_law(x, y, rng=np.random.default_rng(1), samples=200)(4000))
        return high - low

    assert width(0.001) < width(0.01) < width(0.05)
    assert width(0.01) == width(0.01)


def test_blocks_keep_neighbours_together() -> None:
    x = np.geomspace(1, 512, 10)
    y = law(x, 0.2, 1.0, 0.5) + 0.02 * np.sign(np.sin(np.arange(10)))
    laws = [bootstrap_power_law(x, y, rng=np.random.default_rng(0), samples=100, block=block) for block in (1, 3)]
    assert not np.array_equal(laws[0].floor, laws[1].floor)
    assert all(len(each.floor) == 100 for each in laws)


def test_too_few_different_values_are_refused() -> None:
    with pytest.raises(ValueError, match="3 different values, at least 4"):
        fit_power_law(np.array([1.0, 2, 2, 4]), np.ones(4))
