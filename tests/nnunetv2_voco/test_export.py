from pathlib import Path

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

from nnunetv2_voco.encoder import plain_architecture
from nnunetv2_voco.export import main
from nnunetv2_voco.target import read_plans, read_target
from nnunetv2_voco.transfer import encoder_tensors
from tests.nnunetv2_voco.planned_dataset import write_checkpoint


@pytest.mark.parametrize("configuration", ["3d_fullres", "3d_lowres", "3d_cascade_fullres"])
def test_stock_nnunet_takes_the_file(configuration: str, preprocessed: Path, checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "full.pth"
    main([str(checkpoint), "-d", "999", "-c", configuration, "-p", "nnUNetPlans", "-o", str(file)])
    network = read_target(preprocessed, read_plans(preprocessed, "nnUNetPlans"), configuration).build()
    load_pretrained_weights(network, str(file))
    weights = torch.load(checkpoint, weights_only=True)["network_weights"]
    for name, tensor in encoder_tensors(network).items():
        assert torch.equal(
            tensor[:, :1] if tensor.ndim == 5 and "stages.0.0.convs.0" in name else tensor, weights[name]
        )


def test_account_notes_where_plans_differ_from_pretraining(
    preprocessed: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    main([str(checkpoint), "-d", "999", "-o", str(tmp_path / "full.pth")])
    assert "1.5 × 1 × 1 mm in pre-training" in capsys.readouterr().out


def test_2d_is_refused(preprocessed: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2D network, the weights are 3D"):
        main([str(checkpoint), "-d", "999", "-c", "2d", "-o", str(tmp_path / "full.pth")])


def test_unknown_configuration_is_named_with_those_there_are(
    preprocessed: Path, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="no configuration 4d; the plans have 2d, 3d_lowres"):
        main([str(checkpoint), "-d", "999", "-c", "4d", "-o", str(tmp_path / "full.pth")])


def test_nothing_is_written_when_too_little_fits_unless_insisted(preprocessed: Path, tmp_path: Path) -> None:
    checkpoint, file = write_checkpoint(tmp_path / "small.pth", plain_architecture((1, 2, 2))), tmp_path / "full.pth"
    with pytest.raises(SystemExit, match="at least 50% are expected"):
        main([str(checkpoint), "-d", "999", "-o", str(file)])
    assert not file.exists()
    main([str(checkpoint), "-d", "999", "-o", str(file), "--insist"])
    assert file.exists()


def test_missing_folder_is_named(preprocessed: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="its folder does not exist"):
        main([str(checkpoint), "-d", "999", "-o", str(tmp_path / "nowhere" / "full.pth")])
