import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

from nnunetv2_voco.pretrain.phantom import LABELS, main, make_phantom
from nnunetv2_voco.pretrain.phantom_dataset import write_phantom_dataset
from nnunetv2_voco.pretrain.phantom_files import write_phantoms


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom_dataset(tmp_path_factory.mktemp("raw"), 7, training=2, test=1, spacing_mm=8.0)


def test_dataset_is_what_nnunet_expects(dataset: Path):
    assert dataset.name == "Dataset007_Phantoms"
    verify_dataset_integrity(str(dataset), num_processes=1)
    assert [p.name for p in sorted((dataset / "imagesTs").iterdir())] == ["phantom_002_0000.nii.gz"]
    assert [p.name for p in sorted((dataset / "labelsTs").iterdir())] == ["phantom_002.nii.gz"]


def test_every_label_occurs_in_every_case(dataset: Path):
    declared = json.loads((dataset / "dataset.json").read_text())["labels"]
    assert declared == {"background": 0, **LABELS}
    for path in (dataset / "labelsTr").iterdir():
        assert set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))) == set(declared.values())


def test_individuals_are_others_than_those_of_the_unlabelled_folder(dataset: Path, tmp_path: Path):
    write_phantoms(tmp_path / "ct", number=1, spacing_mm=8.0, dicom=False)
    unlabelled = sitk.ReadImage(str(tmp_path / "ct" / "phantom_000.nii.gz"))
    labelled = sitk.ReadImage(str(dataset / "imagesTr" / "phantom_000_0000.nii.gz"))
    assert unlabelled.GetSize() != labelled.GetSize()


def test_case_does_not_depend_on_how_many_there_are(dataset: Path, tmp_path: Path):
    other = write_phantom_dataset(tmp_path, 8, training=1, test=0, spacing_mm=8.0)
    name = "imagesTr/phantom_000_0000.nii.gz"
    assert (other / name).read_bytes() == (dataset / name).read_bytes()


def test_existing_dataset_and_impossible_numbers_are_refused(dataset: Path, capsys: pytest.CaptureFixture):
    for arguments, message in (
        (["--dataset", "7"], "Dataset007_Phantoms exists"),
        (["--dataset", "1000"], "dataset 1000"),
        (["--dataset", "9", "--spacing", "99"], "spacing 99.0 mm"),
    ):
        with pytest.raises(SystemExit):
            main([str(dataset.parent), *arguments])
        assert message in capsys.readouterr().err


def test_look_alikes_alone_are_labelled_in_the_same_images(dataset: Path, tmp_path: Path):
    main([str(tmp_path), "--dataset", "7", "-n", "2", "--test", "1", "--spacing", "8", "--labels", "look-alikes"])
    other = tmp_path / "Dataset007_LookAlikes"
    verify_dataset_integrity(str(other), num_processes=1)
    described = json.loads((other / "dataset.json").read_text())
    assert list(described["labels"]) == ["background", *(name for pair in described["look_alikes"] for name in pair)]
    for index in range(2):
        name = f"phantom_{index:03d}"
        both = [folder / "imagesTr" / f"{name}_0000.nii.gz" for folder in (dataset, other)]
        assert both[0].read_bytes() == both[1].read_bytes()
        all_organs, few = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "labelsTr" / f"{name}.nii.gz")))
            for folder in (dataset, other)
        )
        for organ, value in described["labels"].items():
            if value:
                assert np.array_equal(few == value, all_organs == LABELS[organ])
        assert set(np.unique(few)) == set(described["labels"].values())


def test_levels_of_the_spine_are_stacked_and_fill_it(tmp_path: Path):
    folder = write_phantom_dataset(tmp_path, 9, training=1, test=0, spacing_mm=4.0, labelling="spine")
    assert folder.name == "Dataset009_SpineLevels"
    verify_dataset_integrity(str(folder), num_processes=1)
    levels = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "labelsTr" / "phantom_000.nii.gz")))
    organs = make_phantom(np.random.default_rng((0, 1, 0)), spacing_mm=4.0).labels_zyx
    assert np.array_equal(levels > 0, organs == LABELS["spine"])
    heights = [np.argwhere(levels == level)[:, 0] for level in range(1, 7)]
    middles_mm = 4.0 * np.array([height.mean() for height in heights])
    assert (np.diff(middles_mm) > 40).all()  # 56 mm in the average body
    assert all(len(height) > 500 for height in heights)
