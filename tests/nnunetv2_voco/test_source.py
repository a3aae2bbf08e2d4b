import hashlib
from pathlib import Path

import pytest

from nnunetv2_voco.checkpoint import CheckpointError
from nnunetv2_voco.source import NoWeightsNamed, WeightSource, digest, weight_source


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("checkpoint", "decoder", "insist", "across_families"):
        monkeypatch.delenv(f"nnUNet_voco_{name}", raising=False)


def test_neither_way_given_names_both() -> None:
    with pytest.raises(NoWeightsNamed, match="voco_plan(.|\n)*nnUNet_voco_checkpoint"):
        weight_source({})


def test_environment_names_file_and_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_voco_checkpoint", "a.pth")
    monkeypatch.setenv("nnUNet_voco_insist", "True")
    monkeypatch.setenv("nnUNet_voco_decoder", "0")
    assert weight_source({}) == WeightSource(checkpoint="a.pth", insist=True)


def test_source_survives_the_plans() -> None:
    source = WeightSource(checkpoint="a.pth", sha256="1", decoder=True, across_families=True)
    assert weight_source({"nnunetv2_voco": source.to_plans()}) == source


def test_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    assert digest(tmp_path / "file") == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_changed_file_is_refused(checkpoint: Path) -> None:
    source = WeightSource(checkpoint=str(checkpoint), sha256=digest(checkpoint))
    assert source.open().weights
    with checkpoint.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(CheckpointError, match="has changed since the plans were written"):
        source.open()
