import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunetv2_voco.pretrain import cli
from nnunetv2_voco.pretrain.config import PretrainConfig
from nnunetv2_voco.pretrain.setting_presets import PAPER, REGION_PRESETS, TINY

HELP = """
import sys
from nnunetv2_voco.pretrain.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
print([name for name in ("torch", "numpy", "SimpleITK", "matplotlib") if name in sys.modules])
"""


def settings(*words: str) -> dict:
    arguments = vars(cli.build_parser().parse_args(cli._with_window_joined(["CT", "-o", "OUT", *words])))
    return cli.given_settings({k: v for k, v in arguments.items() if k not in ("folders", "out")})


def refusal(*words: object) -> str:
    """What `voco_pretrain` says as it exits."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    assert stop.value.code not in (None, 0)
    return str(stop.value.code)


def test_help_is_instant_and_loads_nothing_heavy():
    started = time.monotonic()
    result = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    assert time.monotonic() - started < 2
    assert result.stdout.splitlines()[-1] == "[]"
    assert "--crop-size" in result.stdout


def test_only_what_is_given_becomes_a_setting():
    assert settings() == {}
    assert settings("--lr", "0.1") == {"lr": 0.1}


def test_explicit_options_win_over_presets():
    assert settings("--tiny", "--steps", "7") == {**TINY, "steps": 7}
    assert settings("--paper", "--lr", "1e-3") == {**PAPER, "lr": 1e-3}
    assert settings("--preset", "chest", "--spacing", "2")["spacing"] == (2.0, 2.0, 2.0)


def test_order_on_the_command_line_does_not_matter():
    assert settings("--steps", "7", "--tiny") == settings("--tiny", "--steps", "7")


def test_region_preset_gives_spacing_and_window():
    assert settings("--preset", "chest") == REGION_PRESETS["chest"]


def test_tiny_leaves_the_plans_alone():
    given = settings("--tiny", "-d", "3")
    assert not {"spacing", "features", "crop_size"} & given.keys()
    assert given["steps"] == TINY["steps"]


@pytest.mark.parametrize("text", ["32", "32,32,32", "32x32x32"])
def test_one_number_stands_for_all_axes(text):
    assert settings("--crop-size", text) == {"crop_size": (32, 32, 32)}


@pytest.mark.parametrize("words", [("--window", "-175,250"), ("--window=-175,250",)])
def test_window_may_begin_with_a_minus(words):
    assert settings(*words) == {"window": (-175.0, 250.0)}


def test_window_without_value_is_refused(capsys):
    with pytest.raises(SystemExit):
        settings("--window", "--tiny")
    assert "--window" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--grid", "3,3"), ("--crop-size", "a,b,c"), ("--spacing", "1,2"), ("--lr", "x")])
def test_malformed_numbers_are_refused_by_the_parser(words, capsys):
    with pytest.raises(SystemExit) as stop:
        settings(*words)
    assert stop.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_every_setting_has_an_option_with_its_default_in_the_help():
    text = cli.build_parser().format_help()
    for name in PretrainConfig.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in text


@pytest.mark.parametrize(
    "option", [("--spacing", "2"), ("--window", "-1,1"), ("--arch", "plain"), ("--preset", "chest")]
)
def test_dataset_and_what_it_decides_exclude_each_other(option):
    message = refusal("CT", "-o", "OUT", "-d", "3", *option)
    assert option[0] in message
    assert "exclude" in message


def test_missing_folder_is_named_and_nothing_is_written(tmp_path: Path):
    message = refusal(tmp_path / "absent", "-o", tmp_path / "out")
    assert "absent" in message
    assert not (tmp_path / "out").exists()


def test_no_folder_at_all_is_an_error(tmp_path: Path):
    assert "no folder" in refusal("-o", tmp_path / "out")


def test_existing_out_is_not_touched(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    message = refusal(tmp_path, "-o", tmp_path)
    assert "notes.txt" in message
    assert "--continue" in message
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_out_that_is_a_file_is_refused(tmp_path: Path):
    (tmp_path / "out").write_text("")
    assert "is a file" in refusal(tmp_path, "-o", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--crop-size", "20", "--features", "4,8,8,8"), ("(20, 20, 20)", "(8, 8, 8)")),
        (("--crop-size", "4", "--features", "4,8,8"), ("(4, 4, 4)", "single voxel")),
        (("--device", "gpu"), ("device 'gpu'",)),
        (("--lr", "-1"), ("lr -1.0", "positive")),
    ],
)
def test_settings_that_cannot_work_are_refused_before_any_volume_is_read(tmp_path: Path, options, words):
    message = refusal(tmp_path, "-o", tmp_path / "out", *options)
    assert all(word in message for word in words)
    assert not (tmp_path / "out").exists()


def test_empty_folder_is_an_error_that_leaves_out_free_for_another_try(tmp_path: Path):
    (tmp_path / "ct").mkdir()
    for _ in range(2):
        assert "at least 2" in refusal(tmp_path / "ct", "-o", tmp_path / "out", "-np", "1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("CT", "-o", "OUT", "--gpu", "h100"), "--dry-run"),
        (("--dry-run",), "-o is missing"),
        (("--dry-run", "--volumes", "0"), "positive"),
        (("--dry-run", "--volumes", "9", "--gpu", "gtx"), "rtx4090"),
        (("--dry-run", "--volumes", "9", "--gpu", "0xh100"), "8xh100"),
    ],
)
def test_estimate_that_cannot_be_is_refused(words, said):
    assert said in refusal(*words)


def test_estimate_without_volumes_writes_nothing(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.main(["--dry-run", "--volumes", "160000", "--gpu", "8xh100", "--steps", "2000000"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "cache of 160000 volumes" in printed
    assert "8 × h100" in printed
    assert "2000000 steps" in printed
    assert list(tmp_path.iterdir()) == []


def test_dataset_without_nnunet_folders_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    assert "nnUNet_preprocessed" in refusal(tmp_path, "-o", tmp_path / "out", "-d", "3")
