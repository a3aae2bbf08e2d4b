from pathlib import Path

import pytest
import torch

from nnunetv2_voco.encoder import build_network, plain_architecture
from nnunetv2_voco.inspection import ARCHITECTURES, main
from nnunetv2_voco.presets import PLANNERS
from tests.nnunetv2_voco.planned_dataset import FEATURES, write_checkpoint


def test_own_checkpoint_says_what_it_is_where_from_and_how_good(
    checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    main([str(checkpoint)])
    output = capsys.readouterr().out
    for text in (
        "origin        nnunetv2_voco",
        "plain; 1 input channels, 3 stages [4, 8, 8], kernels 3×3×3",
        "spacing_mm              [1.5, 1.0, 1.0]",
        "accuracy                0.75",
        "please cite   Wu, Zhuang, Chen",
    ):
        assert text in output


def test_bare_weights_say_what_their_shapes_show(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save(build_network(plain_architecture(FEATURES), num_input_channels=2).state_dict(), tmp_path / "bare.pt")
    main([str(tmp_path / "bare.pt")])
    output = capsys.readouterr().out
    assert "origin        state dict" in output
    assert "encoder and decoder" in output
    assert "2 input channels, 3 stages [4, 8, 8]" in output


def test_report_against_a_plan_is_shown(preprocessed: Path, checkpoint: Path, capsys: pytest.CaptureFixture) -> None:
    main([str(checkpoint), "-d", "999", "-c", "3d_cascade_fullres"])
    output = capsys.readouterr().out
    assert "input channels 1 → 3" in output
    assert "note: spacing 1 × 1 × 1 mm in the plan, 1.5 × 1 × 1 mm in pre-training" in output


def test_too_small_a_share_is_said(preprocessed: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main([str(write_checkpoint(tmp_path / "small.pth", plain_architecture((1, 2, 2)))), "-d", "999"])
    assert "the trainers refuse less than 50%" in capsys.readouterr().out


def test_missing_file_is_named() -> None:
    with pytest.raises(SystemExit, match=r"voco_inspect: nowhere.pth: no such file"):
        main(["nowhere.pth"])


def test_cost_of_a_named_network_is_shown_before_training(capsys: pytest.CaptureFixture) -> None:
    main(["--arch", "plain", "--scale", "L", "--crop-size", "32,64,64"])
    output = capsys.readouterr().out
    assert "48, 96, 192, 384, 480, 480" in output
    assert "for a crop of 32×64×64" in output
    assert "49.3 M" in output


def test_cost_of_a_planned_network_is_shown(preprocessed: Path, capsys: pytest.CaptureFixture) -> None:
    main(["-d", "999", "--crop-size", "16"])
    assert "4, 8, 8" in capsys.readouterr().out


def test_named_networks_are_those_of_pretraining() -> None:
    assert ("plain", *PLANNERS) == ARCHITECTURES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a checkpoint, or a network"),
        (["--arch", "plain", "-d", "3"], "either --arch or -d"),
        (["--arch", "plain", "--crop-size", "64,x"], "--crop-size 64,x"),
        (["--arch", "plain", "--crop-size", "0"], "--crop-size 0"),
    ],
)
def test_questions_without_an_answer_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_crop_that_does_not_pass_is_one_line() -> None:
    with pytest.raises(SystemExit, match="voco_inspect: crop size .* must be a multiple"):
        main(["--arch", "plain", "--crop-size", "40"])
