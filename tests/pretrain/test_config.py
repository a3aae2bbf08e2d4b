import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from nnunetv2_voco.pretrain.config import (
    PretrainConfig,
    as_tuples,
    differing_fields,
    help_of,
)
from nnunetv2_voco.pretrain.setting_presets import PAPER, REGION_PRESETS, TINY

BAD = [
    ("spacing", (1.0, 1.0), "3 numbers"),
    ("spacing", (1.0, 0.0, 1.0), "positive"),
    ("spacing", (1.0, float("nan"), 1.0), "positive"),
    ("grid", (3, 3), "3 numbers"),
    ("grid", (1, 1, 1), "at least two"),
    ("grid", (0, 3, 3), "positive"),
    ("crop_size", (64, 64), "3 numbers"),
    ("crop_size", (64, -64, 64), "positive"),
    ("features", (32, 0), "positive"),
    ("window", (1.0,), "2 numbers"),
    ("window", (250.0, -175.0), "below"),
    ("window", (0.0, float("nan")), "below"),
    ("scale", "XL", "must be one of S, B, L, H"),
    ("random_crops", 0, "positive"),
    ("batch_size", 0, "positive"),
    ("steps", 0, "positive"),
    ("lr", 0.0, "positive"),
    ("lr", float("nan"), "positive"),
    ("clip_norm", -1.0, "positive"),
    ("projection_size", 0, "positive"),
    ("val_every", 0, "positive"),
    ("save_every", 0, "positive"),
    ("log_every", 0, "positive"),
    ("warmup_steps", -1, "negative"),
    ("weight_decay", -0.1, "negative"),
    ("weight_decay", float("nan"), "negative"),
    ("intra_weight", -1.0, "negative"),
    ("inter_weight", -1.0, "negative"),
    ("reg_weight", -1.0, "negative"),
    ("seed", -1, "negative"),
    ("inter_ramp", -1, "negative"),
    ("num_workers", -1, "negative"),
    ("dropout_p", 1.0, "[0, 1)"),
    ("teacher_momentum", 1.0, "[0, 1)"),
    ("val_fraction", 1.0, "[0, 1)"),
    ("min_body_crop", -0.1, "[0, 1)"),
    ("min_body_base", 1.5, "[0, 1)"),
    ("arch", "unet", "plain, resenc-m"),
    ("precision", "fp8", "auto, fp32"),
    ("dropout", "channel", "element, crop"),
    ("device", "gpu", "cuda"),
]


@pytest.mark.parametrize(("name", "value", "expectation"), BAD)
def test_bad_value_is_refused_with_field_value_and_expectation(name, value, expectation):
    with pytest.raises(ValueError, match=f"^{name} ") as error:
        PretrainConfig(**{name: value})
    assert str(value) in str(error.value)
    assert expectation in str(error.value)


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:3"])
def test_devices_that_may_exist_are_accepted(device):
    assert PretrainConfig(device=device).device == device


@pytest.mark.parametrize("preset", [TINY, PAPER, *REGION_PRESETS.values()])
def test_presets_are_sound(preset):
    PretrainConfig(**preset)


def test_every_field_is_documented():
    assert all(len(help_of(field.name)) > 10 for field in fields(PretrainConfig))


def test_json_gives_back_the_same_settings(tmp_path: Path):
    config = PretrainConfig(window=(-175.0, 250.0), features=(4, 8), crop_size=(16, 32, 32), inter_ramp=3, lr=3e-4)
    config.save(tmp_path / "config.json")
    assert PretrainConfig.load(tmp_path / "config.json") == config
    assert as_tuples(json.loads((tmp_path / "config.json").read_text())) == vars(config)


def test_differing_fields_are_named_with_both_values():
    stored = PretrainConfig(lr=1e-4, grid=(1, 3, 3))
    (line,) = differing_fields(stored, {"lr": 3e-4, "grid": (1, 3, 3)})
    assert line.startswith("lr: ")
    assert "0.0001" in line
    assert "0.0003" in line


def test_fields_that_do_not_change_the_result_may_differ():
    stored = PretrainConfig()
    assert differing_fields(stored, {"device": "cuda:1", "num_workers": 5, "save_every": 7, "precision": "fp32"}) == []


@pytest.mark.parametrize(("ramp", "expected"), [(None, 500), (0, 0), (7, 7)])
def test_ramp_lasts_as_long_as_the_run_unless_set(ramp, expected):
    assert replace(PretrainConfig(steps=500), inter_ramp=ramp).ramp_steps == expected


def test_scale_is_for_the_plain_network():
    with pytest.raises(ValueError, match="resenc-l names its size itself"):
        PretrainConfig(arch="resenc-l", scale="L")
