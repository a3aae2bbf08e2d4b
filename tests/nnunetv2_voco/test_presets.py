import json
import os

import numpy as np
import pytest

from nnunetv2_voco.encoder import Architecture, plain_architecture
from nnunetv2_voco.presets import PLANNERS, preset_architecture

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
SPACING, SHAPE, VOLUMES = (1.5, 1.5, 1.5), (200, 240, 250), 40


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Folders with a fingerprint of a CT dataset whose spacing and median size are those above."""
    for variable in FOLDERS:
        folder = tmp_path / variable / "Dataset123_Torso"
        folder.mkdir(parents=True)
        monkeypatch.setenv(variable, str(tmp_path / variable))
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": VOLUMES,
        "file_ending": ".nii.gz",
    }
    properties = {"mean": 0.0, "std": 1.0, "percentile_00_5": 0.0, "percentile_99_5": 1.0}
    fingerprint = {
        "spacings": [SPACING] * VOLUMES,
        "shapes_after_crop": [SHAPE] * VOLUMES,
        "foreground_intensity_properties_per_channel": {"0": properties},
        "median_relative_size_after_cropping": 1.0,
    }
    raw = tmp_path / "nnUNet_raw" / "Dataset123_Torso"
    (raw / "imagesTr").mkdir()
    (raw / "labelsTr").mkdir()
    for index in range(VOLUMES):  # names are enough: no voxel is read
        (raw / "imagesTr" / f"case{index}_0000.nii.gz").touch()
        (raw / "labelsTr" / f"case{index}.nii.gz").touch()
    (raw / "dataset.json").write_text(json.dumps(description))
    preprocessed = tmp_path / "nnUNet_preprocessed" / "Dataset123_Torso"
    (preprocessed / "dataset.json").write_text(json.dumps(description))
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    return preprocessed


@pytest.mark.slow
@pytest.mark.parametrize("preset", PLANNERS)
def test_preset_is_what_the_planner_writes_for_such_a_dataset(planned, preset, monkeypatch, capsys):
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import residual_encoder_unet_planners

    planner_class = getattr(residual_encoder_unet_planners, PLANNERS[preset])
    planner = planner_class("Dataset123_Torso")
    monkeypatch.setattr(planner, "determine_transpose", lambda: ([0, 1, 2], [0, 1, 2]))
    monkeypatch.setattr(planner, "determine_reader_writer", lambda: type("Reader", (), {}))
    planner.plan_experiment()
    (written,) = planned.glob("nnUNetResEnc*Plans.json")
    configuration = json.loads(written.read_text())["configurations"]["3d_fullres"]
    capsys.readouterr()
    architecture = preset_architecture(preset, spacing_mm=SPACING, median_shape=SHAPE, number_of_volumes=VOLUMES)
    assert architecture == Architecture.from_plans(configuration["architecture"])
    assert architecture.is_residual
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_larger_presets_are_larger():
    stages = [
        preset_architecture(preset, spacing_mm=SPACING, median_shape=SHAPE, number_of_volumes=10).n_stages
        for preset in ("resenc-m", "resenc-xl")
    ]
    assert stages[0] <= stages[1]


@pytest.mark.slow
def test_thick_slices_keep_their_anisotropy():
    thick = preset_architecture(
        "resenc-m", spacing_mm=(5.0, 0.8, 0.8), median_shape=(60, 500, 500), number_of_volumes=10
    )
    assert thick.arch_kwargs["kernel_sizes"][0] == [1, 3, 3]
    assert (thick.total_stride[0] < thick.total_stride[1:]).all()
    json.dumps(thick.to_plans())


@pytest.mark.parametrize("before", [None, "elsewhere"])
def test_nnunets_folders_are_restored(monkeypatch, before):
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import residual_encoder_unet_planners

    for name in FOLDERS:
        monkeypatch.delenv(name, raising=False)
        if before is not None:
            monkeypatch.setenv(name, before)
    seen = []

    def plan(*_args):
        seen.extend(os.environ[name] for name in FOLDERS)
        return {"architecture": plain_architecture((4, 8)).to_plans()}

    planner = residual_encoder_unet_planners.nnUNetPlannerResEncM
    monkeypatch.setattr(planner, "get_plans_for_configuration", plan)
    architecture = preset_architecture("resenc-m", spacing_mm=SPACING, median_shape=SHAPE, number_of_volumes=4)
    assert architecture == plain_architecture((4, 8))
    assert len(set(seen)) == 1
    assert seen[0] != before
    assert not os.path.exists(seen[0])
    assert [os.environ.get(name) for name in FOLDERS] == [before] * 3


def test_nnunets_folders_are_restored_after_an_error(monkeypatch):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever nnU-Net raises for an impossible size
        preset_architecture("resenc-m", spacing_mm=SPACING, median_shape=(), number_of_volumes=4)
    assert "nnUNet_raw" not in os.environ


@pytest.mark.slow
def test_median_size_may_be_numpy():
    architecture = preset_architecture(
        "resenc-l", spacing_mm=np.array(SPACING), median_shape=np.array(SHAPE), number_of_volumes=VOLUMES
    )
    assert architecture == preset_architecture(
        "resenc-l", spacing_mm=SPACING, median_shape=SHAPE, number_of_volumes=VOLUMES
    )


def test_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="resenc-s"):
        preset_architecture("resenc-s", spacing_mm=SPACING, median_shape=SHAPE, number_of_volumes=4)
