"""A raw dataset of nnU-Net that grows case by case and is complete at every moment from its first case on."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from nnunetv2_voco.atomic import write_atomically, write_json

TABLE = "pseudolabels.csv"
ENDING = ".nii.gz"
_UNFINISHED = ".writing_"


class DatasetFolder:
    """Writes images, labels, `dataset.json` and the table of confidences.

    Args:
        folder: nnUNet_raw/DatasetXXX_Name.
        labels: `labels` of the model's dataset.json; its ignore label is left out, as a model never predicts it.
        regions_class_order: Of the model, if it predicts regions.
    """

    def __init__(self, folder: Path, labels: Mapping[str, Any], regions_class_order: list[int] | None = None) -> None:
        self.folder = folder
        self.labels = {name: value for name, value in labels.items() if name != "ignore"}
        self.regions_class_order = regions_class_order
        self.rows: list[dict[str, Any]] = []
        for part in ("imagesTr", "labelsTr"):
            (folder / part).mkdir(parents=True, exist_ok=True)
            for leftover in (folder / part).glob(f"{_UNFINISHED}*"):
                leftover.unlink()

    def read_rows(self) -> None:
        """Take up the cases of an earlier run."""
        file = self.folder / TABLE
        if file.is_file():
            with file.open(newline="", encoding="utf-8") as table:
                self.rows = [dict(row) for row in csv.DictReader(table)]

    def image_file(self, case: str) -> Path:
        """Where the image of a case belongs."""
        return self.folder / "imagesTr" / f"{case}_0000{ENDING}"

    def label_file(self, case: str) -> Path:
        """Where the labels of a case belong."""
        return self.folder / "labelsTr" / f"{case}{ENDING}"

    def write_image(self, case: str, image: sitk.Image) -> None:
        """Write the image of a case; it counts once its labels are there."""
        write_by_renaming(self.image_file(case), lambda path: sitk.WriteImage(image, str(path), useCompression=True))

    def drop_image(self, case: str) -> None:
        """Take back an image that gets no labels."""
        self.image_file(case).unlink(missing_ok=True)

    def note(self, row: Mapping[str, Any]) -> None:
        """Add a row to the table, and bring table and dataset.json up to date."""
        self.rows.append(dict(row))
        names = list(dict.fromkeys(name for each in self.rows for name in each))

        def write(temporary: Path) -> None:
            with temporary.open("w", newline="", encoding="utf-8") as table:
                writer = csv.DictWriter(table, names)
                writer.writeheader()
                writer.writerows(self.rows)

        write_atomically(self.folder / TABLE, write)
        description: dict[str, Any] = {
            "channel_names": {"0": "CT"},
            "labels": self.labels,
            "numTraining": len(list((self.folder / "labelsTr").glob(f"*{ENDING}"))),
            "file_ending": ENDING,
            "description": "Labels predicted by a model, not drawn by anyone; confidence per case in " + TABLE,
        }
        if self.regions_class_order is not None:
            description["regions_class_order"] = self.regions_class_order
        write_json(self.folder / "dataset.json", description)


def write_by_renaming(path: Path, write: Callable[[Path], Any]) -> None:
    """Write an image file under another name with the same ending, which says its format, and rename it."""
    temporary = path.with_name(f"{_UNFINISHED}{path.name}")
    write(temporary)
    temporary.replace(path)


def foreground_labels(labels: Mapping[str, Any]) -> dict[str, int]:
    """Return the foreground labels that are one value each; regions are named by the value that is written for them."""
    return {
        name: int(value)
        for name, value in labels.items()
        if not isinstance(value, (list, tuple)) and name != "ignore" and int(value) > 0
    }


def read_labels(folder: Path) -> Mapping[str, Any] | None:
    """Return the labels of a dataset that is there already."""
    file = folder / "dataset.json"
    return json.loads(file.read_text(encoding="utf-8"))["labels"] if file.is_file() else None
