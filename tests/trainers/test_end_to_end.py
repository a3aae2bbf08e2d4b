"""Real data through nnU-Net's own commands: plan, pre-process, fine-tune, continue, predict without this package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nnunetv2_voco.encoder import plain_architecture
from tests.conftest import SHARED
from tests.nnunetv2_voco.planned_dataset import write_checkpoint

pytestmark = pytest.mark.slow

NAME = "Dataset904_Hippocampus"
TINY = plain_architecture((8, 16, 32))
TRAINER = """
from nnunetv2_voco.trainers.lengths import nnUNetTrainerVoCo_5ep

class nnUNetTrainerVoCo_tiny(nnUNetTrainerVoCo_5ep):
    length_epochs = 2

    def initialize(self):
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 1
        super().initialize()
"""


def run(module: str, function: str, *arguments: str, folder: Path, n_workers: int = 0, **variables: str) -> str:
    """Call a console command as its script does, outside the checkout."""
    environment = os.environ | {
        "nnUNet_raw": str(folder / "raw"),
        "nnUNet_preprocessed": str(folder / "preprocessed"),
        "nnUNet_results": str(folder / "results"),
        "nnUNet_extTrainer": str(folder / "trainers"),
        "nnUNet_n_proc_DA": str(n_workers),
        "nnUNet_def_n_proc": "1",
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(
        [sys.executable, "-c", f"from {module} import {function}; {function}()", *arguments],
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nnU-Net's folders with eight cases, pre-processed, and plans small enough for a CPU."""
    source = SHARED / "data" / "nnUNet_raw" / NAME
    if not source.is_dir():
        pytest.skip(f"the data set is not here ({source})")
    folder = tmp_path_factory.mktemp("project")
    raw = folder / "raw" / NAME
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
        for file in sorted((source / part).iterdir())[:8]:
            shutil.copy(file, raw / part)
    description = json.loads((source / "dataset.json").read_text()) | {"numTraining": 8}
    (raw / "dataset.json").write_text(json.dumps(description))
    for part in ("preprocessed", "results", "trainers", "images"):
        (folder / part).mkdir()
    shutil.copy(next((raw / "imagesTr").iterdir()), folder / "images")
    (folder / "trainers" / "tiny_trainer.py").write_text(TRAINER)
    entry = ("nnunetv2.experiment_planning.plan_and_preprocess_entrypoints", "plan_and_preprocess_entry")
    arguments = ("-d", "904", "-c", "3d_fullres", "-np", "1", "-npfp", "1")
    run(*entry, *arguments, folder=folder, n_workers=1)
    file = folder / "preprocessed" / NAME / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    small = {"batch_size": 2, "patch_size": [32, 32, 32], "architecture": TINY.to_plans()}
    plans["configurations"]["3d_fullres"].update(small)
    file.write_text(json.dumps(plans))
    write_checkpoint(folder / "voco_encoder.pth", TINY)
    return folder


def test_three_commands_lead_from_weights_to_predictions_that_need_no_plugin(project: Path) -> None:
    run("nnunetv2_voco.plan", "main", "-d", "904", "-pc", "voco_encoder.pth", "-n", "tiny", folder=project)
    train = ("904", "3d_fullres", "0", "-tr", "nnUNetTrainerVoCo_tiny", "-p", "nnUNetPlans_VoCo_tiny", "-device", "cpu")
    output = run("nnunetv2.run.run_training", "run_training_entry", *train, folder=project)
    assert "(100.0%) come from the checkpoint" in output
    assert "Mean Validation Dice" in output

    results = project / "results" / NAME / "nnUNetTrainerVoCo_tiny__nnUNetPlans_VoCo_tiny__3d_fullres"
    final = results / "fold_0" / "checkpoint_final.pth"
    assert torch.load(final, weights_only=False)["trainer_name"] == "nnUNetTrainer"

    (project / "voco_encoder.pth").unlink()
    names = ("-d", "904", "-c", "3d_fullres", "-f", "0", "-tr", "nnUNetTrainerVoCo_tiny", "-p", "nnUNetPlans_VoCo_tiny")
    run(
        "nnunetv2.inference.predict_from_raw_data", "predict_entry_point",
        "-i", "images", "-o", "predictions", *names, "-device", "cpu", "--disable_tta", "-npp", "1", "-nps", "1",
        folder=project, TORCH_DEVICE_BACKEND_AUTOLOAD="0", nnUNet_extTrainer="",
    )  # fmt: skip
    assert len(list((project / "predictions").glob("*.nii.gz"))) == 1

    final.unlink()  # a job that was killed after its last epoch
    output = run("nnunetv2.run.run_training", "run_training_entry", *train, "--c", "--npz", folder=project)
    assert "come from the checkpoint" not in output
    assert list((results / "fold_0" / "validation").glob("*.npz"))

    output = run("nnunetv2.run.run_training", "run_training_entry", *train, "--val", folder=project)
    assert "come from the checkpoint" not in output
    assert "Mean Validation Dice" in output
