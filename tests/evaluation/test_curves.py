import math

import pytest

from nnunetv2_voco.evaluation.benchmark.curves import epochs_to_reach, final_value, smoothed


def test_smoothing_is_the_mean_of_the_last_tenth() -> None:
    values = [float(epoch) for epoch in range(20)]
    assert smoothed(values) == pytest.approx([0.0] + [epoch - 0.5 for epoch in range(1, 20)])
    assert smoothed([0.1, 0.3, 0.2]) == pytest.approx([0.1, 0.3, 0.2])


def test_line_reaches_a_value_where_arithmetic_says() -> None:
    line = [epoch / 100 for epoch in range(1, 101)]  # smoothed over ten: epoch / 100 - 0.045
    assert final_value(line) == pytest.approx(0.955)
    assert epochs_to_reach(line, 0.4549) == 50
    assert epochs_to_reach(line, final_value(line)) == 100
    assert epochs_to_reach(line, 0.956) is None


def test_curve_twice_as_fast_needs_half_the_epochs() -> None:
    slow = [1 - math.exp(-epoch / 300) for epoch in range(1, 101)]
    fast = [1 - math.exp(-2 * epoch / 300) for epoch in range(1, 101)]
    assert epochs_to_reach(fast, final_value(slow)) == pytest.approx(50, abs=3)


def test_lucky_first_epochs_do_not_count() -> None:
    values = [0.9] + [0.1] * 50 + [0.5] * 49
    assert epochs_to_reach(values, 0.45) > 51


def test_epoch_without_the_class_counts_as_zero() -> None:
    assert final_value([math.nan, 0.4]) == pytest.approx(0.4)
    assert smoothed([math.nan]) == pytest.approx([0.0])
