from pathlib import Path

import pytest
import torch

from nnunetv2_voco.checkpoint import Checkpoint, save_checkpoint
from nnunetv2_voco.encoder import build_network, plain_architecture
from nnunetv2_voco.pretrain.phantom_files import write_phantoms

STATISTICS = {"mean": -100.0, "std": 300.0, "percentile_00_5": -900.0, "percentile_99_5": 600.0}


@pytest.fixture(scope="session")
def cts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three coarse phantoms, stored RAS or LPS, the last one as DICOM, and a file that is no volume."""
    folder = tmp_path_factory.mktemp("given") / "cts"
    write_phantoms(folder, number=3, spacing_mm=8.0)
    (folder / "labels.nii.gz").write_bytes(b"")
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "voco_encoder.pth")


def write_encoder(path: Path, **preprocessing: object) -> Path:
    """A described checkpoint of random weights, for CT at 8 mm in crops of 16³."""
    architecture = plain_architecture((4, 8, 8))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = build_network(architecture, num_input_channels=1)
    checkpoint = Checkpoint(
        weights={name: tensor for name, tensor in network.state_dict().items() if name.startswith("encoder.")},
        architecture=architecture,
        preprocessing={
            "spacing_mm": [8.0, 8.0, 8.0],
            "orientation": "LPS",
            "transpose": [0, 1, 2],
            "normalization_scheme": "CTNormalization",
            "intensity_properties": STATISTICS,
        }
        | preprocessing,
        pretraining={"crop_size": [16, 16, 16]},
    )
    save_checkpoint(path, checkpoint)
    return path
