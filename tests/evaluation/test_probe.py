import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunetv2_voco.checkpoint import Checkpoint, save_checkpoint
from nnunetv2_voco.encoder import build_network, plain_architecture
from nnunetv2_voco.evaluation.probe import ProbeRequest, probe, split_cases
from nnunetv2_voco.evaluation.probe_cli import main
from nnunetv2_voco.evaluation.probe_report import verdict
from nnunetv2_voco.evaluation.probe_scores import paired_difference
from tests.nnunetv2_voco.planned_dataset import FEATURES

SMALL = ["-d", "999", "--labelled", "3", "--test", "4", "--seeds", "2"]


def request(checkpoint: Path, **changes: object) -> ProbeRequest:
    return ProbeRequest(**{"checkpoint": str(checkpoint), "dataset": "999", "labelled": 3, "seeds": 2} | changes)


def test_encoder_that_sees_what_tells_organs_apart_beats_random_ones(stripes: Path, stripe_detector: Path) -> None:
    result = probe(request(stripe_detector))
    assert result.labels == ("background", "organ", "tumour")
    for kind in ("linear", "knn"):
        ours, theirs = result.scores[kind]["pre-trained"], result.scores[kind]["random"]
        assert ours.balanced_accuracy_S.min() > theirs.balanced_accuracy_S.max() + 0.1
        assert ours.mean_dice_S.min() > theirs.mean_dice_S.max()
        assert paired_difference(ours, theirs).low > 0
    assert verdict(result).startswith("The encoder carries anatomy that a random one does not")
    assert result.mismatches == ("spacing 1 × 1 × 1 mm in the plan, 2 × 1 × 1 mm in pre-training",)


def test_a_random_encoder_is_not_found_better_than_random_ones(stripes: Path, tmp_path: Path) -> None:
    architecture = plain_architecture(FEATURES)
    torch.manual_seed(11)
    encoder = build_network(architecture, num_input_channels=1).encoder
    weights = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    save_checkpoint(tmp_path / "random.pth", Checkpoint(weights=weights, architecture=architecture))
    result = probe(request(tmp_path / "random.pth", seeds=4))
    assert re.match("No (clear )?difference to a random encoder", verdict(result))


def test_same_request_gives_the_same_numbers(stripes: Path, stripe_detector: Path) -> None:
    first, second = (probe(request(stripe_detector)) for _ in range(2))
    np.testing.assert_array_equal(
        first.scores["linear"]["random"].counts_SKC5, second.scores["linear"]["random"].counts_SKC5
    )
    state = torch.get_rng_state()
    probe(request(stripe_detector, seeds=1))
    assert torch.equal(state, torch.get_rng_state())


def test_no_case_is_learned_from_and_tested_on(stripes: Path, stripe_detector: Path) -> None:
    cases = tuple(f"case_{i}" for i in range(30))
    test, labelled = split_cases(cases, request(stripe_detector, seeds=5))
    assert len(test) == 12
    assert len(set(labelled)) > 1
    for drawn in labelled:
        assert len(set(drawn)) == 3
        assert not set(drawn) & set(test)


def test_command_prints_tables_and_verdict_and_writes_json(
    stripes: Path, stripe_detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    main([str(stripe_detector), *SMALL, "-o", str(tmp_path / "probe.json")])
    output = capsys.readouterr().out
    for text in ("note: spacing", "(100.0%) come from the checkpoint", "tumour", "by chance 0.33", "95 % interval"):
        assert text in output
    content = json.loads((tmp_path / "probe.json").read_text())
    assert content["verdict"] in output
    assert len(content["test_cases"]) == 4
    ours = content["scores"]["linear"]["pre-trained"]["balanced_accuracy"]
    theirs = content["scores"]["linear"]["random"]["balanced_accuracy"]
    difference = content["difference_of_balanced_accuracy"]["linear"]
    assert difference["value"] == pytest.approx(np.mean(ours) - np.mean(theirs), abs=1e-4)
    assert difference["low"] <= difference["value"] <= difference["high"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-c", "2d"], "2d is 2D; take a 3D one"),
        (["-c", "3d_cascade_fullres"], "needs the labels of the cascade's first stage"),
        (["-c", "4d"], "no configuration 4d"),
        (["-p", "others"], "no such plans"),
        (["--labelled", "7"], "8 pre-processed cases cannot give 7 labelled and 4 test cases"),
        (["--seeds", "0"], "--seeds 0: at least 1 is needed"),
        (["--window_size", "10"], r"must be a multiple of the network's stride \(4, 4, 4\)"),
        (["-o", "nowhere/probe.json"], "its folder does not exist"),
        (["--device", "cuda:77"], "--device cuda:77: cannot be used here .*; take --device cpu"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(
    stripes: Path, stripe_detector: Path, options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        main([str(stripe_detector), *SMALL, *options])


def test_dataset_that_was_only_planned_is_said_to_be(preprocessed: Path, stripe_detector: Path) -> None:
    with pytest.raises(SystemExit, match="no pre-processed cases; run nnUNetv2_preprocess -d Dataset999_Tiny"):
        main([str(stripe_detector), "-d", "999"])


def test_missing_checkpoint_is_named(stripes: Path) -> None:
    with pytest.raises(SystemExit, match="nowhere.pth: no such file"):
        main(["nowhere.pth", "-d", "999"])
