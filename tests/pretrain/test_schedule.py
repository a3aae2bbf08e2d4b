import pytest

from nnunetv2_voco.pretrain.schedule import inter_volume_weight, learning_rate


def rates(steps: int = 100, warmup_steps: int = 10, peak: float = 2.0) -> list[float]:
    return [learning_rate(step, peak=peak, warmup_steps=warmup_steps, steps=steps) for step in range(steps)]


def test_warm_up_is_linear_and_ends_at_the_peak():
    assert rates()[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates()[10] == pytest.approx(2.0)
    assert max(rates()) == pytest.approx(2.0)


def test_rate_falls_as_half_a_cosine_to_nothing():
    values = rates()
    assert values[55] == pytest.approx(1.0)
    assert all(a > b for a, b in zip(values[10:], values[11:], strict=False))
    assert 0 < values[-1] < 0.01
    assert learning_rate(100, peak=2.0, warmup_steps=10, steps=100) == pytest.approx(0, abs=1e-12)


def test_first_step_already_learns():
    assert rates()[0] > 0


@pytest.mark.parametrize("warmup_steps", [0, 1, 100, 500])
def test_any_length_of_warm_up_gives_rates_up_to_the_peak(warmup_steps):
    assert all(0 < rate <= 2.0 for rate in rates(warmup_steps=warmup_steps))


def weight(step: int, ramp_steps: int = 10, ramp_start: int | None = 20) -> float:
    return inter_volume_weight(step, full=0.5, ramp_steps=ramp_steps, ramp_start=ramp_start)


def test_inter_volume_weight_is_nothing_until_the_ramp_begins():
    assert weight(1000, ramp_start=None) == 0
    assert weight(20) == 0


def test_inter_volume_weight_grows_linearly_to_full_and_stays():
    assert weight(25) == pytest.approx(0.25)
    assert weight(30) == weight(10**6) == 0.5


def test_inter_volume_weight_without_a_ramp_is_always_full():
    assert weight(0, ramp_steps=0, ramp_start=None) == 0.5
