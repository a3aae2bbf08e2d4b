import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from nnunetv2_voco.checkpoint import load_checkpoint
from nnunetv2_voco.encoder import build_encoder, build_network
from nnunetv2_voco.pretrain import loop, validation
from nnunetv2_voco.pretrain.config import PretrainConfig
from nnunetv2_voco.pretrain.dataset import PretrainDataset
from nnunetv2_voco.pretrain.log import read_records
from nnunetv2_voco.pretrain.run import RunError
from nnunetv2_voco.transfer import load_encoder
from tests.pretrain.tiny_run import SETTINGS, run_tiny, same_bits, weights, write_ct

pytestmark = pytest.mark.slow

STEPS = 24


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ct(tmp_path_factory.mktemp("input") / "ct_of_Jane_Doe")


@pytest.fixture(scope="module")
def finished(ct: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run and its verdict."""
    out = tmp_path_factory.mktemp("output") / "run"
    verdict = run_tiny(ct, out, steps=STEPS, val_every=8)
    assert verdict is not None
    return out, verdict


@pytest.fixture(autouse=True)
def few_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation of a few crops is enough for runs whose figures nobody looks at."""
    monkeypatch.setattr(validation, "REGIONS", 6)


@pytest.fixture
def short(ct: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run with a data set some of whose samples are poisoned; the run's folder."""

    def run(poisoned, steps: int) -> Path:
        sound = PretrainDataset.__getitem__

        def getitem(self, number):
            sample = sound(self, number)
            return sample._replace(crops=sample.crops * float("nan")) if number // 2 in poisoned else sample

        monkeypatch.setattr(PretrainDataset, "__getitem__", getitem)
        run_tiny(ct, tmp_path / "run", steps=steps)
        return tmp_path / "run"

    return run


def test_everything_that_is_promised_lies_in_out(finished: tuple[Path, str]):
    out, _ = finished
    promised = {
        "voco_encoder.pth", "voco_state.pth", "config.json", "plan.json", "volumes.json", "log.jsonl", "tensorboard",
        "progress.png", "samples.png", "volumes.png", "cache",
    }  # fmt: skip
    assert {path.name for path in out.iterdir()} == promised
    assert list((out / "tensorboard").iterdir())
    for name in ("progress.png", "samples.png", "volumes.png"):
        assert np.std(matplotlib.image.imread(out / name)[..., :3]) > 0.02, name


def test_verdict_is_said_in_words_with_chance_beside(finished: tuple[Path, str]):
    _, verdict = finished
    assert "learned where things are in the body" in verdict
    assert "blind guess 12%" in verdict


def test_log_has_every_step_once_and_a_validation_from_step_0_on(finished: tuple[Path, str]):
    records = read_records(finished[0] / "log.jsonl")
    training = [r for r in records if r["kind"] == "training"]
    assert [r["step"] for r in training] == list(range(1, STEPS + 1))
    assert [r["step"] for r in records if r["kind"] == "validation"] == [0, 8, 16, 24]
    assert {"total", "intra", "inter", "reg", "lr", "grad_norm", "crops_per_second"} <= training[0].keys()


def test_checkpoint_describes_itself_and_fits_its_network(finished: tuple[Path, str]):
    checkpoint = load_checkpoint(finished[0] / "voco_encoder.pth")
    encoder = build_encoder(checkpoint.architecture)
    encoder.load_state_dict({name.removeprefix("encoder."): w for name, w in checkpoint.weights.items()})
    assert checkpoint.preprocessing["spacing_mm"] == [6.0, 6.0, 6.0]
    assert checkpoint.preprocessing["orientation"] == "LPS"
    assert checkpoint.preprocessing["normalization_scheme"] == "CTNormalization"
    assert checkpoint.pretraining["steps"] == STEPS
    assert checkpoint.pretraining["crop_size"] == [16, 16, 16]
    assert checkpoint.pretraining["num_volumes"] == 4
    assert 0 <= checkpoint.pretraining["metrics"]["accuracy"] <= 1
    assert {"torch", "nnunetv2_voco"} <= checkpoint.provenance["packages"].keys()


def test_checkpoint_and_cache_tell_nothing_of_where_the_input_came_from(finished: tuple[Path, str], ct: Path):
    out, _ = finished
    files = [out / "voco_encoder.pth", out / "voco_state.pth", *(p for p in (out / "cache").rglob("*") if p.is_file())]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        for word in (b"Jane_Doe", b"phantom_0", str(ct.parent).encode(), str(out.parent).encode()):
            assert word not in content, (path, word)


def test_volumes_json_says_what_became_of_each_volume(finished: tuple[Path, str]):
    volumes = json.loads((finished[0] / "volumes.json").read_text())["volumes"]
    assert sorted(v["status"] for v in volumes) == ["training"] * 4 + ["validation"]


def test_stored_settings_are_those_that_were_given(finished: tuple[Path, str]):
    assert PretrainConfig.load(finished[0] / "config.json") == PretrainConfig(
        **{**SETTINGS, "steps": STEPS, "val_every": 8}
    )


def test_continuing_a_finished_run_repeats_its_verdict_and_changes_nothing(finished: tuple[Path, str], ct: Path):
    out, verdict = finished
    before, log = weights(out), (out / "log.jsonl").read_text()
    assert run_tiny(ct, out, resume=True, steps=STEPS, val_every=8) == verdict
    assert same_bits(weights(out), before)
    assert (out / "log.jsonl").read_text() == log


def test_finished_run_is_not_overwritten(finished: tuple[Path, str], ct: Path):
    with pytest.raises(RunError, match="nothing is overwritten"):
        run_tiny(ct, finished[0])


def test_same_seed_gives_the_same_weights_with_and_without_workers(finished, ct: Path, tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from tests.pretrain.tiny_run import run_tiny\n"
        "run_tiny(Path(sys.argv[1]), Path(sys.argv[2]), steps=int(sys.argv[3]), val_every=8, num_workers=2)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(ct), str(tmp_path / "run"), str(STEPS)],
        check=True, env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )  # fmt: skip
    assert same_bits(weights(tmp_path / "run"), weights(finished[0]))


def test_dry_run_estimates_and_writes_no_more_than_the_list(ct: Path, tmp_path: Path, capsys):
    assert run_tiny(ct, tmp_path / "run", dry_run=True) is None
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["volumes.json"]
    assert "a step" in capsys.readouterr().out
    run_tiny(ct, tmp_path / "run", steps=1)  # the folder is still free for the run itself


def test_step_that_is_not_finite_is_skipped_and_counted(short):
    out = short({2, 3}, steps=6)
    state = torch.load(out / "voco_state.pth", weights_only=True)
    assert state["progress"]["skipped_steps"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in weights(out).values())
    records = [r for r in read_records(out / "log.jsonl") if r["kind"] == "training"]
    assert [r["skipped_steps"] for r in records] == [0, 0, 1, 2, 2, 2]
    assert [r["total"] is None for r in records] == [False, False, True, True, False, False]


def test_skipped_step_is_none_for_the_optimiser(short):
    out = short(range(1, 100), steps=4)
    state = torch.load(out / "voco_state.pth", weights_only=True)
    assert {int(entry["step"]) for entry in state["optimizer"]["state"].values()} == {1}


def test_run_stops_with_advice_when_no_step_is_finite(short, tmp_path: Path):
    with pytest.raises(loop.TrainingStopped, match="not finite in 10 steps in a row.*--precision fp32"):
        short(range(3, 100), steps=40)
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "run").values())


def test_run_without_held_out_volumes_says_so(ct: Path, tmp_path: Path):
    assert "training volumes" in run_tiny(ct, tmp_path / "run", steps=1, val_fraction=0.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"grid": (2, 2, 2)},
        {"random_crops": 4},
        {"batch_size": 1},
        {"precision": "bf16"},
        {"channels_last": True},
        {"dropout": "crop", "min_body_crop": 0.0, "min_body_base": 0.0},
        {"window": (-175.0, 250.0)},
        {"val_fraction": 0.9},
    ],
    ids=str,
)
def test_every_kind_of_setting_trains(ct: Path, finished: tuple[Path, str], tmp_path: Path, settings):
    assert run_tiny(ct, tmp_path / "run", steps=2, val_every=2, **settings) is not None
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "run").values())


def test_decoder_learns_and_comes_along(ct: Path, finished: tuple[Path, str], tmp_path: Path):
    run_tiny(ct, tmp_path / "run", steps=40, lr=1e-2, decoder_weight=1.0)
    losses = [r["decoder"] for r in read_records(tmp_path / "run" / "log.jsonl") if r["kind"] == "training"]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    checkpoint = load_checkpoint(tmp_path / "run" / "voco_encoder.pth")
    assert checkpoint.pretraining["settings"]["decoder_weight"] == 1
    assert checkpoint.classes == ()
    network = build_network(checkpoint.architecture, num_input_channels=1, num_output_channels=5)
    report = load_encoder(network, checkpoint, decoder=True, classes=("background", "a", "b", "c", "d"))
    assert {record.state for record in (*report.encoder, *report.decoder)} == {"copied"}
    assert not any(name.startswith("decoder.") for name in weights(finished[0]))
    assert not any(r["decoder"] for r in read_records(finished[0] / "log.jsonl") if r["kind"] == "training")


def test_precision_may_be_lowered_and_raised_when_a_run_is_continued(ct: Path, tmp_path: Path, monkeypatch):
    stop = loop.StopOnSignal
    for precision, expected in (("bf16", "bf16"), ("fp32", "fp32"), ("fp16", "fp16")):
        monkeypatch.setattr(loop, "StopOnSignal", type("Stop", (stop,), {"__init__": lambda self: _request(self)}))
        assert run_tiny(ct, tmp_path / "run", resume=True, precision=precision) is None
        state = torch.load(tmp_path / "run" / "voco_state.pth", weights_only=True)
        assert state["progress"]["precision"] == expected
        assert PretrainConfig.load(tmp_path / "run" / "config.json").precision == precision
    assert state["progress"]["step"] == 3


def _request(signal_note: loop.StopOnSignal) -> None:
    signal_note.requested, signal_note._before = True, {}
