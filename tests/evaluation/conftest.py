from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from torch import nn

from nnunetv2_voco.checkpoint import Checkpoint, save_checkpoint
from nnunetv2_voco.encoder import build_network, plain_architecture
from tests.evaluation.benchmark_dataset import make_labelled_dataset
from tests.nnunetv2_voco.planned_dataset import FEATURES, make_dataset, write_checkpoint


@pytest.fixture
def preprocessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a planned data set, without cases."""
    return make_dataset(tmp_path, monkeypatch)


@pytest.fixture
def stripes(preprocessed: Path) -> Path:
    """A dataset whose two organs are as bright as the background and differ by the direction of faint stripes."""
    rng = np.random.default_rng(3)
    folder = preprocessed / "nnUNetPlans_3d_fullres"
    folder.mkdir()
    along = np.arange(20) % 2 * 2.0 - 1
    for case in range(8):
        seg = np.zeros((1, 20, 20, 20), np.int8)
        first, second = rng.permutation([1, 2])
        seg[:, 3:17, 3:17, 2:10], seg[:, 3:17, 3:17, 10:18] = first, second
        seg[:, :2] = -1
        stripes = (seg == 1) * along + (seg == 2) * along[:, None]
        data = (stripes + rng.normal(0, 1.2, seg.shape)).astype(np.float32)
        nnUNetDatasetBlosc2.save_case(
            data, seg, {}, str(folder / f"case_{case}"),
            chunks=seg.shape, blocks=seg.shape, chunks_seg=seg.shape, blocks_seg=seg.shape,
        )  # fmt: skip
    return preprocessed


@pytest.fixture
def stripe_detector(tmp_path: Path) -> Path:
    """A checkpoint whose first two channels answer to stripes along x and y; all its other weights are random."""
    torch.manual_seed(1)
    architecture = plain_architecture(FEATURES)
    encoder = build_network(architecture, num_input_channels=1).encoder
    first, second = (encoder.stages[0][0].convs[i].conv for i in (0, 1))
    with torch.no_grad():
        first.weight[:2] = 0
        first.weight[0, 0, 1, 1] = first.weight[1, 0, 1, :, 1] = torch.tensor([-1.0, 2.0, -1.0])
        second.weight[:2] = 0
        for channel in (0, 1):
            nn.init.constant_(second.weight[channel, channel], 1 / 27)
    path = tmp_path / "stripes.pth"
    weights = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    preprocessing = {
        "spacing_mm": [2.0, 1.0, 1.0],
        "orientation": "LPS",
        "normalization_scheme": "CTNormalization",
    }
    save_checkpoint(path, Checkpoint(weights=weights, architecture=architecture, preprocessing=preprocessing))
    return path


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pre-processed folder of a data set with cases and true labels, without a split of nnU-Net's."""
    return make_labelled_dataset(tmp_path, monkeypatch)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "voco_encoder.pth")
