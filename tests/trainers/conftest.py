from pathlib import Path

import pytest

from tests.nnunetv2_voco.planned_dataset import make_dataset, write_cases, write_checkpoint


@pytest.fixture
def preprocessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = make_dataset(tmp_path, monkeypatch)
    write_cases(folder)
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "voco_encoder.pth")
