from pathlib import Path

import numpy as np
import pytest

from nnunetv2_voco.evaluation.probe_classify import CLASSIFIERS, FittedProbe, Tally, Voxels
from nnunetv2_voco.evaluation.probe_data import ProbeDataset, draw_corners, draw_voxels
from nnunetv2_voco.evaluation.probe_scores import Scores, paired_difference
from nnunetv2_voco.target import read_plans


def blobs(rng: np.random.Generator, per_class: int, classes: int = 3) -> Voxels:
    classes_N = np.repeat(np.arange(classes), per_class)
    return Voxels(rng.normal(3 * np.eye(4)[classes_N], 1.0), classes_N, rng.uniform(1, 5, len(classes_N)))


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("cases", [1, 4])
def test_tally_is_what_counting_one_by_one_gives(rng: np.random.Generator, kind: str, cases: int) -> None:
    fitted = FittedProbe(kind, [blobs(rng, 20) for _ in range(cases)], num_classes=3)
    voxels = blobs(rng, 15)
    tally = fitted.tally(voxels)
    evidence = fitted.evidence(voxels.features_NE)
    guesses = evidence.argmax(axis=1)
    assert tally.sampled.tolist() == [15] * 3
    assert tally.right.tolist() == [
        sum(g == t == c for g, t in zip(guesses, voxels.classes_N, strict=True)) for c in range(3)
    ]
    assert tally.right.sum() > 30
    np.testing.assert_allclose(tally.true, [voxels.weights_N[voxels.classes_N == c].sum() for c in range(3)])
    np.testing.assert_allclose(tally.predicted.sum(), voxels.weights_N.sum())
    assert (tally.hit <= np.minimum(tally.true, tally.predicted) + 1e-9).all()


def test_frequent_classes_are_preferred_for_dice_only(rng: np.random.Generator) -> None:
    training = blobs(rng, 200)
    training = training._replace(weights_N=np.where(training.classes_N == 0, 1e6, 1.0))
    tally = FittedProbe("linear", [training], num_classes=3).tally(blobs(rng, 100))
    assert tally.predicted[0] > 0.8 * tally.true.sum()
    assert tally.right.min() > 60


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_class_without_a_labelled_voxel_is_never_predicted(rng: np.random.Generator, kind: str) -> None:
    tally = FittedProbe(kind, [blobs(rng, 20, classes=2)], num_classes=3).tally(blobs(rng, 10))
    assert tally.predicted[2] == 0
    assert tally.right[2] == 0


def test_labelled_cases_of_one_class_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="show a single class"):
        FittedProbe("linear", [blobs(rng, 20, classes=1)], num_classes=3)


def test_windows_lie_in_the_case_or_around_its_middle(rng: np.random.Generator) -> None:
    seg = np.zeros((30, 12, 20), int)
    seg[28, 5, 3] = 2
    for corner in draw_corners(rng, seg, [0, 1, 2], size_vox=(8, 16, 8), count=3):
        assert corner == (22, -2, 0)
    empty = draw_corners(rng, np.zeros_like(seg), [0, 1], size_vox=(8, 16, 8), count=50)
    assert len(empty) > 5
    assert all(0 <= z <= 22 and y == -2 and 0 <= x <= 12 for z, y, x in empty)


def test_drawn_voxels_stand_for_all_of_their_class(rng: np.random.Generator) -> None:
    labels = rng.choice([0, 1, 4, 9], (6, 7, 8), p=[0.6, 0.2, 0.15, 0.05])
    inside = np.ones_like(labels, dtype=bool)
    inside[0] = False
    drawn = draw_voxels(rng, labels, inside, {"a": 0, "b": 1, "c": 4}, voxels_per_class=10)
    places, classes, weights = drawn["places_N3"], drawn["classes_N"], drawn["weights_N"]
    assert (places[:, 0] > 0).all()
    assert len(np.unique(places, axis=0)) == len(places)
    np.testing.assert_array_equal(labels[tuple(places.T)], np.array([0, 1, 4])[classes])
    for index, label in enumerate((0, 1, 4)):
        assert weights[classes == index].sum() == pytest.approx((labels[1:] == label).sum())


def test_windows_of_a_case_show_its_image_and_labels(stripes: Path) -> None:
    dataset = ProbeDataset(stripes, read_plans(stripes, "nnUNetPlans"), configuration="3d_fullres")
    data, seg, _, _ = dataset._dataset.load_case("case_3")
    (window,) = dataset.windows("case_3", size_vox=(24, 24, 24), count=3, voxels_per_class=50, seed=0)
    inner = (slice(2, 22),) * 3
    np.testing.assert_array_equal(window.image[(0, *inner)], data[0])
    assert np.count_nonzero(window.image) == np.count_nonzero(data[:])
    truth = np.maximum(seg[0], 0)[tuple((window.places_N3 - 2).T)]
    np.testing.assert_array_equal(np.array([0, 1, 2])[window.classes_N], truth)


def tallies(rng: np.random.Generator, share: float, seeds: int = 3, cases: int = 10) -> Scores:
    def one() -> Tally:
        right = rng.binomial(100, share, 3).astype(float)
        return Tally(np.full(3, 100.0), right, np.full(3, 100.0), np.full(3, 100.0), right)

    return Scores.of([[one() for _ in range(cases)] for _ in range(seeds)])


def test_interval_holds_the_true_difference(rng: np.random.Generator) -> None:
    misses = 0
    for _ in range(20):
        difference = paired_difference(tallies(rng, 0.7), tallies(rng, 0.6))
        assert difference.low < difference.value < difference.high
        misses += not difference.low < 0.1 < difference.high
    assert misses <= 3
    same = tallies(rng, 0.6)
    assert paired_difference(same, same).low == paired_difference(same, same).high == 0


def test_dice_and_recall_of_an_absent_class_are_no_numbers(rng: np.random.Generator) -> None:
    scores = tallies(rng, 0.6)
    scores.counts_SKC5[:, :, 2] = 0
    assert np.isnan(scores.recall_SC[:, 2]).all()
    assert np.isnan(scores.dice_SC[:, 2]).all()
    assert np.isfinite(scores.balanced_accuracy_S).all()
    assert np.isfinite(scores.mean_dice_S).all()
