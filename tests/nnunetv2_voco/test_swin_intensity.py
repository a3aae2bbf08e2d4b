import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.normalization import default_normalization_schemes as stock

from nnunetv2_voco.swin_intensity import PretrainedIntensities, intensity_rule

WIDE = {"mean": 83.0, "std": 131.0, "percentile_00_5": -950.0, "percentile_99_5": 812.0}
NARROW = {"mean": 99.5, "std": 39.4, "percentile_00_5": -17.0, "percentile_99_5": 201.0}


def as_pretrained(hu: np.ndarray) -> np.ndarray:
    """ScaleIntensityRange(a_min=-175, a_max=250, b_min=0, b_max=1, clip=True) of the authors' pre-processing."""
    return np.clip((hu + 175) / 425, 0, 1)


def through_plans(hu: np.ndarray, scheme: str, properties: dict) -> np.ndarray:
    """nnU-Net's normalisation, then this package's way back."""
    normalised = getattr(stock, scheme)(False, properties).run(hu.astype(np.float32).copy(), None)
    module = PretrainedIntensities.for_plans([scheme], {"0": properties})
    return module(torch.from_numpy(normalised)[None, None])[0, 0].numpy()


@pytest.fixture
def hu(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(-1200, 1500, (8, 9, 10))


@pytest.mark.parametrize(("scheme", "properties"), [("CTNormalization", WIDE), ("NoNormalization", {})])
def test_hu_come_back_exactly_where_the_plans_keep_the_window(hu: np.ndarray, scheme: str, properties: dict) -> None:
    np.testing.assert_allclose(through_plans(hu, scheme, properties), as_pretrained(hu), atol=1e-5)


def test_what_the_plans_clip_enters_as_the_percentile_and_the_rest_exactly(hu: np.ndarray) -> None:
    expected = as_pretrained(np.clip(hu, -17, 201))
    np.testing.assert_allclose(through_plans(hu, "CTNormalization", NARROW), expected, atol=1e-5)
    assert "below -17 HU everything enters as 0.37" in intensity_rule("CTNormalization", NARROW).remark
    assert "above 201 HU everything enters as 0.88" in intensity_rule("CTNormalization", NARROW).remark
    assert "exactly" in intensity_rule("CTNormalization", WIDE).remark


def test_z_scores_enter_by_a_rule_that_is_stated(hu: np.ndarray) -> None:
    expected = np.clip(((hu - hu.mean()) / hu.std() + 3) / 6, 0, 1)
    np.testing.assert_allclose(through_plans(hu, "ZScoreNormalization", {}), expected, atol=1e-5)
    assert "HU cannot be had back" in intensity_rule("ZScoreNormalization", {}).remark


def test_channels_have_rules_of_their_own_and_labels_of_a_cascade_pass(rng: np.random.Generator) -> None:
    module = PretrainedIntensities.for_plans(
        ["CTNormalization", "RescaleTo01Normalization"], {"0": WIDE}, num_label_channels=2
    )
    data = torch.from_numpy(rng.uniform(0, 1, (3, 4, 2, 2, 2))).float()
    result = module(data)
    assert torch.equal(result[:, 1:], data[:, 1:])
    assert not torch.equal(result[:, 0], data[:, 0])


def test_unknown_schemes_and_missing_statistics_are_refused() -> None:
    with pytest.raises(ValueError, match="channel 1: normalisation RGBTo01Normalization cannot"):
        intensity_rule("RGBTo01Normalization", {}, channel=1)
    with pytest.raises(ValueError, match="hold no mean, std, percentile_00_5"):
        intensity_rule("CTNormalization", {})
