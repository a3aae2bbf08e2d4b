import time

import numpy as np
import pytest

from nnunetv2_voco.pretrain.volume_order import LONGEST_PASS, VolumeOrder


def drawn(order: VolumeOrder, numbers: range) -> np.ndarray:
    return np.array([order[i] for i in numbers])


def test_without_weights_the_order_is_a_new_permutation_in_every_pass():
    order = VolumeOrder(13, 7)
    for number_of_pass in range(4):  # as the first release drew: runs in progress continue the same
        expected = np.random.default_rng((7, number_of_pass, 1)).permutation(13)
        np.testing.assert_array_equal(drawn(order, range(13 * number_of_pass, 13 * (number_of_pass + 1))), expected)


def test_whole_weights_are_met_exactly_in_every_pass():
    weights = [8, 1, 1, 8, 2]
    order = VolumeOrder(5, 3, weights)
    assert order.pass_length == 20
    passes = [drawn(order, range(20 * p, 20 * (p + 1))) for p in range(5)]
    assert all(np.array_equal(np.bincount(one, minlength=5), weights) for one in passes)
    assert len({tuple(one) for one in passes}) == 5


def test_equal_weights_draw_every_volume_once_in_a_pass():
    order = VolumeOrder(9, 3, [0.3] * 9)
    assert sorted(drawn(order, range(9, 18))) == list(range(9))


def test_fractional_weights_are_met_on_average_and_within_one_in_each_pass():
    weights = np.array([2.5, 1.0, 1.7, 3.14])
    order = VolumeOrder(4, 0, weights)
    expected = weights / weights.sum()
    first = np.bincount(drawn(order, range(order.pass_length)), minlength=4)
    assert np.all(np.abs(first - expected * order.pass_length) < 1)
    np.testing.assert_allclose(order.counts(40_000) / 40_000, expected, atol=2e-3)


def test_weights_too_far_apart_for_a_pass_are_met_over_several(monkeypatch):
    monkeypatch.setattr("nnunetv2_voco.pretrain.volume_order.LONGEST_PASS", 50)
    weights = np.array([1.0] * 60 + [1000.0] * 2)
    order = VolumeOrder(62, 0, weights)
    assert order.pass_length == 62
    np.testing.assert_allclose(order.counts(620_000)[60:].sum() / 620_000, 2000 / 2060, atol=1e-3)
    assert np.all(order.counts(620_000) > 0)


def test_volume_of_weight_zero_is_never_drawn():
    counts = VolumeOrder(4, 0, [0, 1, 3, 0]).counts(1000)
    assert counts[0] == counts[3] == 0
    assert counts[1] > 0


def test_number_alone_decides_whatever_was_drawn_before():
    weights = [1, 2, 5]
    forwards = drawn(VolumeOrder(3, 1, weights), range(40))
    backwards = drawn(VolumeOrder(3, 1, weights), range(39, -1, -1))[::-1]
    np.testing.assert_array_equal(forwards, backwards)
    assert not np.array_equal(forwards, drawn(VolumeOrder(3, 2, weights), range(40)))


@pytest.mark.parametrize("weights", [None, [1, 2, 5.5, 0]])
@pytest.mark.parametrize("samples", [0, 3, 9, 100])
def test_counts_are_those_of_the_samples(weights, samples):
    order = VolumeOrder(4, 1, weights)
    expected = np.zeros(4, int)
    for i in range(samples):
        expected[order[i]] += 1
    np.testing.assert_array_equal(order.counts(samples), expected)


def test_corpus_of_160_000_volumes_is_drawn_fast_and_as_the_paper_draws_it():
    weights = [8.0] * 29_000 + [1.0] * 131_000  # abdomen and head-neck eight times as often as chest
    order = VolumeOrder(160_000, 0, weights)
    started = time.process_time()
    numbers = range(360_000, 390_000)  # across the end of a pass
    volumes = drawn(order, numbers)
    assert time.process_time() - started < 3
    assert order.pass_length == 363_000 < LONGEST_PASS
    assert (volumes < 29_000).mean() == pytest.approx(232 / 363, abs=0.02)
