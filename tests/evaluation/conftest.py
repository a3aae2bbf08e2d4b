from pathlib import Path

import pytest

from tests.evaluation.benchmark_dataset import make_labelled_dataset
from tests.nnunetv2_voco.planned_dataset import write_checkpoint


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pre-processed folder of a data set with cases and true labels, without a split of nnU-Net's."""
    return make_labelled_dataset(tmp_path, monkeypatch)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "voco_encoder.pth")
