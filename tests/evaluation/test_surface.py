import math

import numpy as np
import pytest

pytest.importorskip("monai", reason='pip install "nnunetv2_voco[benchmark]"')

from nnunetv2_voco.evaluation.benchmark.surface import case_name, surface_scores  # noqa: E402  after the check


def ball(radius_mm: float, spacing_mm: tuple[float, ...], *, size_mm: float = 64, shift_mm: float = 0) -> np.ndarray:
    axes = [np.arange(0, size_mm, step) - size_mm / 2 for step in spacing_mm]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + (x - shift_mm) ** 2 <= radius_mm**2


def box(*, x_from: int, x_to: int) -> np.ndarray:
    mask = np.zeros((40, 40, 60), bool)
    mask[10:30, 10:30, x_from:x_to] = True
    return mask


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.5)])
def test_concentric_balls_are_apart_by_the_difference_of_their_radii(spacing: tuple[float, ...]) -> None:
    hd95, nsd = surface_scores(ball(20, spacing), ball(15, spacing), spacing_mm=spacing, tolerance_mm=2)
    assert hd95 == pytest.approx(5, abs=1.0)  # a voxel
    assert nsd == 0
    assert surface_scores(ball(20, spacing), ball(15, spacing), spacing_mm=spacing, tolerance_mm=6.5)[1] == 1


def test_equal_masks_are_perfect() -> None:
    assert surface_scores(ball(12, (1, 1, 1)), ball(12, (1, 1, 1)), spacing_mm=(1, 1, 1), tolerance_mm=1) == (0, 1)


@pytest.mark.parametrize("spacing_x", [1.0, 2.5])
def test_box_moved_along_an_axis_is_apart_by_the_way_it_moved(spacing_x: float) -> None:
    spacing = (1.0, 1.0, spacing_x)
    masks = box(x_from=10, x_to=50), box(x_from=14, x_to=54)
    hd95, nsd = surface_scores(*masks, spacing_mm=spacing, tolerance_mm=0.5)
    assert hd95 == pytest.approx(4 * spacing_x, abs=1e-6)  # the two end faces are a ninth of each surface, above 5 %
    sides = 2 * 40 * 20 * 2  # in voxel faces; of them the moved box shares all but the last four slices at one end
    ends = 2 * 20 * 20
    assert nsd == pytest.approx((sides * 36 / 40 * spacing_x) / (sides * spacing_x + ends), abs=0.03)


def test_empty_masks_are_told_apart() -> None:
    some, none = box(x_from=10, x_to=20), np.zeros((40, 40, 60), bool)
    for masks in ((some, none), (none, some)):
        hd95, nsd = surface_scores(*masks, spacing_mm=(1, 1, 1), tolerance_mm=1)
        assert math.isnan(hd95)
        assert nsd == 0
    assert all(math.isnan(value) for value in surface_scores(none, none, spacing_mm=(1, 1, 1), tolerance_mm=1))


def test_case_is_named_as_its_file_without_the_ending() -> None:
    assert case_name("/a/validation/case.1.nii.gz", ".nii.gz") == "case.1"
