import numpy as np

from nnunetv2_voco.labelling.confidence import confidence


def test_confidence_is_the_mean_probability_of_what_was_chosen(rng: np.random.Generator) -> None:
    probabilities = rng.dirichlet((1, 1, 1), (3, 4, 5)).transpose(3, 0, 1, 2)
    segmentation = probabilities.argmax(0)
    scores = confidence(probabilities, segmentation, {"organ": 1, "tumour": 2})
    chosen = [probabilities[:, z, y, x][segmentation[z, y, x]] for z, y, x in np.argwhere(segmentation > 0)]
    assert scores["confidence"] == round(float(np.mean(chosen)), 4)
    assert scores["voxels organ"] + scores["voxels tumour"] == len(chosen)
    assert scores["confidence tumour"] == round(float(probabilities[2][segmentation == 2].mean()), 4)
    assert 1 / 3 <= scores["confidence_background"] <= 1


def test_a_sure_model_has_confidence_one_and_an_empty_label_none() -> None:
    segmentation = np.zeros((2, 2, 2), int)
    segmentation[0] = 1
    scores = confidence(np.eye(3)[segmentation].transpose(3, 0, 1, 2), segmentation, {"organ": 1, "tumour": 2})
    assert scores["confidence"] == scores["confidence organ"] == scores["confidence_background"] == 1
    assert scores["confidence tumour"] is None
    assert scores["voxels tumour"] == 0


def test_regions_count_both_ways() -> None:
    probabilities = np.stack([np.full((1, 1, 2), 0.9), np.full((1, 1, 2), 0.2)])
    scores = confidence(probabilities, np.ones((1, 1, 2), int), {"whole": 1}, exclusive=False)
    assert scores["confidence"] == round((0.9 + 0.8) / 2, 4)
