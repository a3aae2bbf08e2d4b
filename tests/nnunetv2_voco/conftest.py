from pathlib import Path

import pytest

from tests.nnunetv2_voco.planned_dataset import make_dataset, write_checkpoint


@pytest.fixture
def preprocessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a planned data set, without cases."""
    return make_dataset(tmp_path, monkeypatch)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "voco_encoder.pth")
