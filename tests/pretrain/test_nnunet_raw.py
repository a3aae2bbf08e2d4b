"""Raw datasets of nnU-Net and of the Decathlon among the folders that are searched."""

import json
from pathlib import Path

from nnunetv2_voco.pretrain.discover import discover
from tests.pretrain.discovered import names, reasons, write


def dataset(folder: Path, **content: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content))


def test_nnunet_dataset_gives_its_ct_channels(tmp_path: Path) -> None:
    folder = tmp_path / "Dataset001_X"
    dataset(folder, channel_names={"0": "CT", "1": "PET", "2": "CT_arterial"}, file_ending=".nii.gz")
    for name in ("imagesTr/a_0000", "imagesTr/a_0001", "imagesTr/a_0002", "imagesTs/b_0000", "labelsTr/a"):
        write(folder / f"{name}.nii.gz")
    write(folder / "imagesTr" / "stray_0000.nrrd")
    found = discover([folder])
    assert names(found) == [
        "Dataset001_X/imagesTr/a_0000.nii.gz",
        "Dataset001_X/imagesTr/a_0002.nii.gz",
        "Dataset001_X/imagesTs/b_0000.nii.gz",
    ]
    assert reasons(found) == {
        "Dataset001_X/imagesTr/a_0001.nii.gz": 'nnU-Net channel "PET" is not CT',
        "Dataset001_X/imagesTr/stray_0000.nrrd": "file ending is not the .nii.gz of dataset.json",
        "Dataset001_X/labelsTr": "label maps of an nnU-Net dataset",
    }
    assert names(discover([folder / "imagesTs"])) == ["imagesTs/b_0000.nii.gz"]
    assert len(names(discover([folder / "imagesTr"]))) == 2


def test_old_nnunet_and_decathlon_datasets_are_understood(tmp_path: Path) -> None:
    dataset(tmp_path / "Task1", modality={"0": "CT"})
    dataset(tmp_path / "Task2", modality={"0": "MRI"})
    write(tmp_path / "Task1" / "imagesTr" / "a.nii.gz")
    write(tmp_path / "Task2" / "imagesTr" / "a.nii.gz")
    assert names(discover([tmp_path])) == [f"{tmp_path.name}/Task1/imagesTr/a.nii.gz"]
    assert names(discover([tmp_path / "Task2"], modality="MR")) == ["Task2/imagesTr/a.nii.gz"]


def test_a_broken_dataset_json_is_reported_and_the_images_are_taken(tmp_path: Path) -> None:
    write(tmp_path / "D" / "imagesTr" / "a_0000.nii.gz")
    for content in ("{", "[]", '{"channel_names": ["CT"]}', '{"channel_names": {"x": 1}}'):
        (tmp_path / "D" / "dataset.json").write_text(content)
        found = discover([tmp_path / "D"])
        assert names(found) == ["D/imagesTr/a_0000.nii.gz"]
        assert "cannot be read" in reasons(found)["D/dataset.json"]


def test_datasets_in_other_formats_are_reported(tmp_path: Path) -> None:
    dataset(tmp_path / "D", channel_names={"0": "CT"}, file_ending=".tif")
    (tmp_path / "D" / "imagesTr").mkdir()
    assert "end with .tif" in reasons(discover([tmp_path / "D"]))["D/dataset.json"]
