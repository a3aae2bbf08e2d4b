"""A power law with offset, y = floor + amplitude · (x / x0)^−exponent, and how sure one can be of it.

For a given exponent the law is linear in floor and amplitude, so the fit is a search over exponents alone; floor and
amplitude are kept from being negative. Everything works on many data sets at once, which makes the bootstrap cheap.
"""

# Shape suffixes: N = measurements, B = data sets (bootstrap samples), E = exponents tried.

from dataclasses import dataclass

import numpy as np

MINIMUM_DISTINCT = 4
"""Different values of x that three parameters need, and one more to be contradicted by."""

EXPONENTS = np.geomspace(0.02, 4, 400)
"""Exponents tried; neighbours differ by 1.3 %."""


@dataclass(frozen=True)
class PowerLaw:
    """One law or many: each parameter is an array of the same shape.

    Attributes:
        floor: What y approaches; not negative.
        amplitude: Height above the floor at `x0`; not negative.
        exponent: Larger is steeper; it means nothing where the amplitude is 0.
        x0: The geometric mean of the measured x.
    """

    floor: np.ndarray
    amplitude: np.ndarray
    exponent: np.ndarray
    x0: float

    def __call__(self, x: float) -> np.ndarray:
        """Return y at x, one for each law."""
        return self.floor + self.amplitude * (x / self.x0) ** -self.exponent

    def gain_of_doubling(self, x: float) -> np.ndarray:
        """Return by how much y falls from x to 2 x, one for each law."""
        return self(x) - self(2 * x)


def fit_power_law(x_N: np.ndarray, y_BN: np.ndarray) -> PowerLaw:
    """Fit by least squares.

    Args:
        x_N: Positive numbers.
        y_BN: One row per data set; a single row may come as shape (N,).

    Returns:
        Laws whose parameters have shape (B,).

    Raises:
        ValueError: If x has too few different values for three parameters.
    """
    distinct = len(np.unique(x_N))
    if distinct < MINIMUM_DISTINCT:
        raise ValueError(f"{distinct} different values, at least {MINIMUM_DISTINCT} are needed for a law with offset")
    y_BN = np.atleast_2d(np.asarray(y_BN, float))
    x0 = float(np.exp(np.log(x_N).mean()))
    best_B, found = np.full(len(y_BN), np.inf), np.zeros((3, len(y_BN)))
    for exponent in EXPONENTS:
        f_N = (np.asarray(x_N) / x0) ** -exponent
        floor_B, amplitude_B = _nonnegative_line(f_N, y_BN)
        error_B = ((y_BN - floor_B[:, None] - amplitude_B[:, None] * f_N) ** 2).sum(1)
        better_B = error_B < best_B
        best_B[better_B] = error_B[better_B]
        for row, values in zip(found, (floor_B, amplitude_B, np.full(len(y_BN), exponent)), strict=True):
            row[better_B] = values[better_B]
    return PowerLaw(*found, x0=x0)


def bootstrap_power_law(
    x_N: np.ndarray, y_N: np.ndarray, *, rng: np.random.Generator, samples: int = 500, block: int = 1
) -> PowerLaw:
    """Fit laws to data drawn from the fitted one with its residuals, widened for the three fitted parameters.

    Args:
        x_N: Positive numbers, in the order in which they were measured if `block` is above 1.
        y_N: The measurements.
        rng: Draws residuals.
        samples: Laws to return.
        block: Neighbouring residuals drawn together, for measurements along one run, which depend on each other.

    Returns:
        Laws whose parameters have shape (samples,).

    Raises:
        ValueError: As `fit_power_law`.
    """
    law = fit_power_law(x_N, y_N)
    fitted_N = np.array([law(x)[0] for x in x_N])
    count = len(x_N)
    residuals_N = (y_N - fitted_N) * np.sqrt(count / max(1, count - 3))
    residuals_N = residuals_N - residuals_N.mean()
    starts = rng.integers(count, size=(samples, -(-count // block)))
    drawn_BN = (starts[..., None] + np.arange(block)).reshape(samples, -1)[:, :count] % count
    return fit_power_law(x_N, fitted_N + residuals_N[drawn_BN])


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the central interval that holds this share of the values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _nonnegative_line(f_N: np.ndarray, y_BN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve y ≈ floor + amplitude · f by least squares with both not negative, for each row of y."""
    centred_N = f_N - f_N.mean()
    mean_B = y_BN.mean(1)
    amplitude_B = y_BN @ centred_N / max(float(centred_N @ centred_N), 1e-300)
    floor_B = mean_B - amplitude_B * f_N.mean()
    through_origin_B = np.clip(y_BN @ f_N / (f_N @ f_N), 0, None)
    amplitude_B = np.where(floor_B < 0, through_origin_B, amplitude_B)
    floor_B = np.clip(floor_B, 0, None)
    falls_B = amplitude_B > 0
    return np.where(falls_B, floor_B, np.clip(mean_B, 0, None)), np.where(falls_B, amplitude_B, 0.0)
