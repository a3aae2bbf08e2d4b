import json
import subprocess
import sys
from pathlib import Path

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_voco.checkpoint import Checkpoint, save_checkpoint
from nnunetv2_voco.encoder import build_network, plain_architecture, residual_architecture
from nnunetv2_voco.plan import main
from nnunetv2_voco.source import digest
from tests.nnunetv2_voco.planned_dataset import plans, write_checkpoint, write_plans


def test_plans_differ_in_name_and_weights_alone(preprocessed: Path, checkpoint: Path) -> None:
    main(["-d", "999", "-pc", str(checkpoint), "-n", "mine"])
    written = json.loads((preprocessed / "nnUNetPlans_VoCo_mine.json").read_text())
    source = written.pop("nnunetv2_voco")
    assert written == plans() | {"plans_name": "nnUNetPlans_VoCo_mine"}
    assert (source["checkpoint"], source["sha256"]) == (str(checkpoint), digest(checkpoint))
    assert (source["decoder"], source["across_families"], source["insist"]) == (False, False, False)


def test_scale_changes_the_3d_networks_alone(preprocessed: Path, checkpoint: Path) -> None:
    main(["-d", "999", "-pc", str(checkpoint), "-n", "large", "--scale", "L", "--insist"])
    written = json.loads((preprocessed / "nnUNetPlans_VoCo_large.json").read_text())["configurations"]
    assert written["2d"] == plans()["configurations"]["2d"]
    assert written["3d_fullres"]["architecture"] == plain_architecture((6, 12, 12)).to_plans() | {
        "arch_kwargs": plain_architecture((6, 12, 12)).arch_kwargs
        | {"n_conv_per_stage": [3] * 3, "n_conv_per_stage_decoder": [3] * 2}
    }
    others = [
        settings | {"architecture": {}} for settings in (written["3d_fullres"], plans()["configurations"]["3d_fullres"])
    ]
    assert others[0] == others[1]


def test_nnunet_reads_the_plans_and_finds_the_same_data(preprocessed: Path, checkpoint: Path) -> None:
    main(["-d", "999", "-pc", str(checkpoint), "-n", "mine"])
    manager = PlansManager(str(preprocessed / "nnUNetPlans_VoCo_mine.json"))
    assert manager.plans_name == "nnUNetPlans_VoCo_mine"
    for configuration in manager.available_configurations:
        assert manager.get_configuration(configuration).data_identifier == "nnUNetPlans_3d_fullres"


def test_name_is_made_of_file_and_digest_unless_given(preprocessed: Path, checkpoint: Path) -> None:
    main(["-d", "Dataset999_Tiny", "-pc", str(checkpoint)])
    assert (preprocessed / f"nnUNetPlans_VoCo_voco_encoder_{digest(checkpoint)[:8]}.json").is_file()


def test_same_again_is_fine_but_other_weights_are_not_overwritten(preprocessed: Path, checkpoint: Path) -> None:
    arguments = ["-d", "999", "-pc", str(checkpoint), "-n", "mine"]
    main(arguments)
    main(arguments)
    write_checkpoint(checkpoint)
    with pytest.raises(SystemExit, match="exists with other weights in it"):
        main(arguments)


def test_transfer_into_each_3d_configuration_is_shown(
    preprocessed: Path, checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    main(["-d", "999", "-pc", str(checkpoint), "-n", "mine"])
    output = capsys.readouterr().out
    assert output.count("(100.0%) come from the checkpoint") == 3
    assert "input channels 1 → 3" in output
    assert "-p nnUNetPlans_VoCo_mine" in output


def test_decoder_that_is_not_asked_for_is_mentioned(
    preprocessed: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    network = build_network(plain_architecture((4, 8, 8)), num_input_channels=1)
    whole = tmp_path / "whole.pth"
    save_checkpoint(whole, Checkpoint(weights=network.state_dict(), architecture=plain_architecture((4, 8, 8))))
    main(["-d", "999", "-pc", str(whole), "-n", "encoder"])
    assert "--decoder transfers it" in capsys.readouterr().out
    main(["-d", "999", "-pc", str(whole), "-n", "both", "--decoder"])
    main(["-d", "999", "-pc", str(checkpoint), "-n", "without"])
    assert "--decoder" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a__b", "../x", "a b", "_a"])
def test_name_that_would_break_nnunets_folders_is_refused(name: str, preprocessed: Path, checkpoint: Path) -> None:
    with pytest.raises(SystemExit, match="take letters, digits, - and single _"):
        main(["-d", "999", "-pc", str(checkpoint), "-n", name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"-d": "998"}, "998"),
        ({"-p": "nnUNetResEncUNetLPlans"}, "no such plans; Dataset999_Tiny has nnUNetPlans"),
        ({"-pc": "nowhere.pth"}, "nowhere.pth: no such file"),
    ],
)
def test_what_is_missing_is_named(change: dict[str, str], message: str, preprocessed: Path, checkpoint: Path) -> None:
    arguments = {"-d": "999", "-pc": str(checkpoint), "-n": "mine"} | change
    with pytest.raises((SystemExit, RuntimeError), match=message):
        main([word for pair in arguments.items() for word in pair])


def test_weights_that_fit_nowhere_are_refused_unless_insisted(
    preprocessed: Path, checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    write_checkpoint(checkpoint, plain_architecture((1, 2, 2)))
    arguments = ["-d", "999", "-pc", str(checkpoint), "-n", "mine"]
    with pytest.raises(SystemExit, match="the weights fit no 3D configuration") as refusal:
        main(arguments)
    assert "stage 0" not in str(refusal.value)  # the accounts are printed above, once
    assert capsys.readouterr().out.count("stage 0 ") == 3
    main([*arguments, "--insist"])
    assert json.loads((preprocessed / "nnUNetPlans_VoCo_mine.json").read_text())["nnunetv2_voco"]["insist"]


def test_other_family_is_refused_unless_asked_for(preprocessed: Path, checkpoint: Path) -> None:
    write_plans(preprocessed, plans(residual_architecture((4, 8, 8), (1, 1, 1))))
    arguments = ["-d", "999", "-pc", str(checkpoint), "-n", "mine"]
    with pytest.raises(SystemExit, match="the checkpoint has a plain encoder, the plan a residual one"):
        main(arguments)
    main([*arguments, "--across_families"])


@pytest.mark.parametrize("module", ["plan", "export", "inspection"])
def test_help_is_instant(module: str) -> None:
    code = f"import sys; from nnunetv2_voco.{module} import main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
