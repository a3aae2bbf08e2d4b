import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

from nnunetv2_voco.labelling.cli import main
from nnunetv2_voco.labelling.model import UnusableModel, load_model
from nnunetv2_voco.labelling.run import CannotLabel, LabelRequest, pseudolabel
from nnunetv2_voco.pretrain.phantom_files import write_phantoms
from tests.labelling.trained_model import write_model
from tests.nnunetv2_voco.planned_dataset import write_checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # nnU-Net hands arrays of memory-mapped files to torch
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
]


@pytest.fixture
def cts(tmp_path: Path) -> Path:
    write_phantoms(tmp_path / "cts", number=3, spacing_mm=8.0, dicom=True)
    return tmp_path / "cts"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def request_for(model: Path, cts: Path, output: Path, **changes) -> LabelRequest:
    settings = {"device": "cpu", "use_mirroring": False, "step": 1.0} | changes
    return LabelRequest(model=model, folders=(str(cts),), output=output, **settings)


def rows(dataset: Path) -> list[dict[str, str]]:
    with (dataset / "pseudolabels.csv").open(newline="") as table:
        return list(csv.DictReader(table))


def test_dataset_is_complete_for_nnunet_and_labels_are_the_predictors(model: Path, cts: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "raw" / "Dataset123_Pool"
    count = pseudolabel(request_for(model, cts, dataset), say=lambda text: None)
    description = json.loads((dataset / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "organ": 1, "tumour": 2}
    assert description["numTraining"] == count == len(rows(dataset)) == 3
    assert any(row["confidence"] for row in rows(dataset))
    verify_dataset_integrity(str(dataset), num_processes=1)
    predictor = load_model(model, device=torch.device("cpu"), use_mirroring=False, step=1.0)
    for row in rows(dataset):
        image = sitk.ReadImage(str(dataset / "imagesTr" / f"{row['case']}_0000.nii.gz"))
        labels = sitk.ReadImage(str(dataset / "labelsTr" / f"{row['case']}.nii.gz"))
        assert image.GetPixelID() == sitk.sitkInt16
        assert labels.GetSpacing() == pytest.approx(image.GetSpacing())
        data, properties = predictor.plans_manager.image_reader_writer_class().read_images(
            [str(dataset / "imagesTr" / f"{row['case']}_0000.nii.gz")]
        )
        expected = predictor.predict_single_npy_array(data, properties)
        assert np.array_equal(sitk.GetArrayFromImage(labels), expected)
        assert (row["confidence"] == "") == (not expected.any())
        assert 1 / 3 <= float(row["confidence"] or 1) <= 1
        assert int(row["voxels organ"]) == (expected == 1).sum()


def test_it_goes_on_where_it_was_and_takes_no_volume_twice(model: Path, cts: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "raw" / "Dataset123_Pool"
    hidden = tmp_path / "later"
    moved = sorted(cts.iterdir())[-1]
    moved.rename(hidden)
    first = pseudolabel(request_for(model, cts, dataset), say=lambda text: None)
    before = {file: file.stat().st_mtime_ns for file in dataset.glob("*Tr/*")}
    (dataset / "imagesTr" / ".writing_case_00009_0000.nii.gz").write_bytes(b"cut off")
    with pytest.raises(CannotLabel, match="is not empty; go on with --continue"):
        pseudolabel(request_for(model, cts, dataset))
    hidden.rename(moved)
    said: list[str] = []
    assert pseudolabel(request_for(model, cts, dataset, resume=True), say=said.append) == 3
    assert sum("already there" in text for text in said) == first
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())
    assert len({row["case"] for row in rows(dataset)}) == 3
    verify_dataset_integrity(str(dataset), num_processes=1)


def test_cases_below_the_least_confidence_are_listed_and_left_out(model: Path, cts: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "raw" / "Dataset123_Pool"
    assert pseudolabel(request_for(model, cts, dataset, least_confidence=1.0), say=lambda text: None) == 0
    assert {row["kept"] for row in rows(dataset)} == {"False"}
    assert not list(dataset.glob("*Tr/*"))


def test_a_checkpoint_of_a_fold_stands_for_that_fold_and_a_folder_for_all(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", folds=("fold_0", "fold_1"))
    both = load_model(model, device=torch.device("cpu"))
    one = load_model(model / "fold_1" / "checkpoint_final.pth", device=torch.device("cpu"))
    assert len(both.list_of_parameters) == 2
    (only,) = one.list_of_parameters
    assert all(torch.equal(only[name], tensor) for name, tensor in both.list_of_parameters[1].items())


def test_what_is_no_model_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UnusableModel, match="holds no plans.json"):
        load_model(tmp_path, device=torch.device("cpu"))
    with pytest.raises(UnusableModel, match="holds an encoder without a segmentation network; fine-tune it"):
        load_model(write_checkpoint(tmp_path / "voco_encoder.pth"), device=torch.device("cpu"))
    with pytest.raises(UnusableModel, match="no fold has a checkpoint_final.pth"):
        load_model(write_model(tmp_path / "unfinished", folds=()), device=torch.device("cpu"))
    other = write_model(tmp_path / "mr", channel_names={"0": "T1"})
    with pytest.raises(UnusableModel, match="the model takes T1; one that takes a CT alone"):
        load_model(other, device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": Path("pool")}, "nnU-Net wants a folder named DatasetXXX_Name"),
        ({"model": Path("nowhere")}, "nowhere: no such file or folder"),
        ({"step": 0.0}, "step 0.0: must lie in"),
        ({"folders": ("EMPTY",)}, "no CT volume found"),
    ],
)
def test_requests_that_make_no_sense_are_refused(changes: dict, message: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    if "folders" in changes:
        changes = {"folders": (str(tmp_path / "empty"),)}
    settings = {"model": model, "folders": (str(tmp_path),), "output": tmp_path / "Dataset123_Pool"} | changes
    with pytest.raises(CannotLabel, match=message):
        pseudolabel(LabelRequest(**settings, device="cpu"))


def test_command_prints_errors_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="voco_pseudolabel: .*no such file or folder"):
        main([str(tmp_path / "model"), str(tmp_path), "-o", str(tmp_path / "Dataset123_Pool")])
