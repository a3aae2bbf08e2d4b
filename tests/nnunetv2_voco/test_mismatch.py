from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2_voco.checkpoint import Checkpoint
from nnunetv2_voco.encoder import build_network, plain_architecture
from nnunetv2_voco.foreign import ForeignCheckpoint, open_checkpoint
from nnunetv2_voco.mismatch import input_mismatches

STATISTICS = {"mean": 100.0, "std": 50.0, "percentile_00_5": -50.0, "percentile_99_5": 250.0}


def mismatches(*, statistics: dict[str, float] = STATISTICS, **configuration: Any) -> list[str]:
    checkpoint = Checkpoint(
        weights={},
        architecture=plain_architecture((4, 8)),
        preprocessing={
            "spacing_mm": [1.5, 1.0, 1.0],
            "normalization_scheme": "CTNormalization",
            "intensity_properties": STATISTICS,
        },
    )
    return list(input_mismatches(checkpoint, plans(statistics, **configuration), "batch_of_4"))


def plans(statistics: dict[str, float] = STATISTICS, **configuration: Any) -> dict[str, Any]:
    settings = {"spacing": [1.5, 1.0, 1.0], "normalization_schemes": ["CTNormalization"]} | configuration
    return {
        "foreground_intensity_properties_per_channel": {"0": statistics},
        "configurations": {"3d_fullres": settings, "batch_of_4": {"inherits_from": "3d_fullres", "batch_size": 4}},
    }


def test_equal_preprocessing_goes_without_a_word():
    assert mismatches() == []
    assert mismatches(spacing=[1.55, 1.0, 0.98], statistics=STATISTICS | {"mean": 100.5}) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"spacing": [3.0, 1.0, 1.0]}, "spacing 3 × 1 × 1 mm in the plan, 1.5 × 1 × 1 mm in pre-training"),
        (
            {"normalization_schemes": ["ZScoreNormalization"]},
            "ZScoreNormalization in the plan, CTNormalization in pre-training",
        ),
        (
            {"statistics": STATISTICS | {"percentile_99_5": 500.0}},
            "intensities 100 ± 50 within -50…500 in the plan, 100 ± 50 within -50…250 in pre-training",
        ),
    ],
)
def test_each_difference_is_said_with_both_numbers(changes: dict[str, Any], text: str):
    assert mismatches(**changes) == [text]


def test_of_a_foreign_file_it_is_said_that_nothing_is_known():
    foreign = ForeignCheckpoint(weights={}, origin="state dict")
    assert "(state dict) does not say" in "".join(input_mismatches(foreign, plans(), "3d_fullres"))


def test_a_model_of_nnunet_is_compared_by_its_own_plans(tmp_path: Path):
    weights = build_network(plain_architecture((4, 8)), num_input_channels=1).state_dict()
    arguments = {"plans": plans(), "configuration": "batch_of_4"}
    torch.save({"network_weights": weights, "init_args": arguments}, tmp_path / "checkpoint_final.pth")
    model = open_checkpoint(tmp_path / "checkpoint_final.pth")
    assert list(input_mismatches(model, plans(), "3d_fullres")) == []
    (mismatch,) = input_mismatches(model, plans(spacing=[3.0, 1.0, 1.0]), "3d_fullres")
    assert mismatch == "spacing 3 × 1 × 1 mm in the plan, 1.5 × 1 × 1 mm in pre-training"
