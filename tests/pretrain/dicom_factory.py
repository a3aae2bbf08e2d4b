"""Writes small DICOM series with patient tags in them, of any geometry, for the tests of discovery and reading."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

PATIENT_TAGS = {
    "PatientName": "Secretname^Patient",
    "PatientID": "SECRETID77",
    "PatientBirthDate": "19330303",
    "InstitutionName": "Secret Hospital",
    "StudyDescription": "Secret study",
    "AccessionNumber": "SECRETACC",
}
SECRETS = ("ecret", "SECRET", "19330303", "1.2.826")  # pieces of the tags above and of the generated UIDs

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def tilted_orientation(degrees: float) -> tuple[float, ...]:
    """Orientation of slices of a gantry tilted about the patient's left-right axis."""
    angle = np.deg2rad(degrees)
    return (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(-np.sin(angle)))


def slice_positions(count: int, step_mm: float = 3.0, origin: Sequence[float] = (-40.0, -30.0, 100.0)) -> np.ndarray:
    """Corners of slices along the table (z), shape (count, 3)."""
    return np.asarray(origin) + np.arange(count)[:, None] * np.array([0, 0, step_mm])


def sample_slices(
    function: Callable[[np.ndarray], np.ndarray],
    positions: np.ndarray,
    orientation: Sequence[float],
    size: tuple[int, int],
    spacing: tuple[float, float],
) -> np.ndarray:
    """Evaluate `function` of points (..., 3) in mm at each pixel; `size` and `spacing` are (rows, columns)."""
    row_axis, column_axis = np.reshape(orientation, (2, 3))
    rows = np.arange(size[0])[:, None, None] * spacing[0] * column_axis
    columns = np.arange(size[1])[None, :, None] * spacing[1] * row_axis
    return np.stack([function(position + rows + columns) for position in positions])


def body(points: np.ndarray) -> np.ndarray:
    """HU of a soft cylinder of 60 mm along z in air, smooth enough for linear interpolation."""
    radius = np.hypot(points[..., 0], points[..., 1])
    return -1000 + 1040 / (1 + np.exp((radius - 26) / 3)) + 0.2 * points[..., 2]


def base_dataset(modality: str = "CT", **tags: Any) -> Dataset:
    """A dataset with patient tags and fresh UIDs, without pixels; `tags` replace or (with None) remove."""
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid()
    dataset.Modality = modality
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    for name, value in PATIENT_TAGS.items():
        setattr(dataset, name, value)
    for name, value in tags.items():
        if value is not None:
            setattr(dataset, name, value)
        elif name in dataset:
            delattr(dataset, name)
    return dataset


def add_pixels(dataset: Dataset, stored: np.ndarray) -> None:
    """Put the stored values (rows, columns) or (frames, rows, columns), int16 or uint16, into the dataset."""
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes()


def save(dataset: Dataset, path: Path, *, compress: bool = False, preamble: bool = True) -> Path:
    """Write the dataset as explicit little endian, or RLE; without preamble as an old scanner would."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    if not preamble:
        dataset.save_as(path, implicit_vr=True, little_endian=True)
        return path
    file = FileDataset(str(path), dataset, file_meta=meta, preamble=b"\0" * 128)
    if compress:
        file.compress(RLELossless, generate_instance_uid=False)
    file.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path,
    hu: np.ndarray,
    *,
    positions: np.ndarray | None = None,
    orientation: Sequence[float] = AXIAL,
    spacing: tuple[float, float] = (2.0, 2.0),
    slope: float | Sequence[float] = 1.0,
    intercept: float = -1024.0,
    name: str = "{:03d}.dcm",
    compress: bool = False,
    preamble: bool = True,
    each: Callable[[int], dict[str, Any]] | None = None,
    **tags: Any,
) -> list[Path]:
    """Write `hu` (slices, rows, columns) as one series, file names from `name`, in shuffled order of position.

    Args:
        folder: Is created.
        hu: Hounsfield units; stored as rounded (hu - intercept) / slope, signed.
        positions: Corner of each slice in mm, (slices, 3); by default 3 mm apart.
        orientation: Direction of a row and of a column.
        spacing: Between rows, between columns.
        slope: One, or one per slice.
        intercept: For all slices.
        name: Pattern for the running number.
        compress: RLE instead of plain pixels.
        preamble: False writes no preamble and no file meta information.
        each: Gives further tags for slice i.
        tags: For all slices; None removes a tag.

    Returns:
        The paths, in order of `hu`.
    """
    positions = slice_positions(len(hu)) if positions is None else positions
    slopes = np.broadcast_to(np.asarray(slope, dtype=float), len(hu))
    shared: dict[str, Any] = {
        "SeriesInstanceUID": generate_uid(),
        "StudyInstanceUID": generate_uid(),
        "SeriesNumber": 3,
    } | tags
    numbers = np.random.default_rng(len(hu)).permutation(len(hu))
    paths = []
    for i, values in enumerate(hu):
        geometry: dict[str, Any] = {
            "ImagePositionPatient": [f"{v:.9g}" for v in positions[i]],
            "ImageOrientationPatient": [f"{v:.9g}" for v in orientation],
            "PixelSpacing": list(spacing),
            "SliceThickness": 3,
            "InstanceNumber": i + 1,
            "RescaleSlope": f"{slopes[i]:.9g}",
            "RescaleIntercept": intercept,
        }
        dataset = base_dataset(**(geometry | shared | (each(i) if each else {})))
        add_pixels(dataset, np.rint((values - intercept) / slopes[i]).astype(np.int16))
        paths.append(save(dataset, folder / name.format(numbers[i]), compress=compress, preamble=preamble))
    return paths


def write_enhanced(path: Path, hu: np.ndarray, positions: np.ndarray, *, intercept: float = -1024.0) -> Path:
    """Write `hu` (frames, rows, columns) as one enhanced multi-frame CT, frames in the order given, 2 mm pixels."""
    dataset = base_dataset(SOPClassUID=EnhancedCTImageStorage)
    dataset.NumberOfFrames = len(hu)
    measures, orientation, transformation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [2.0, 2.0], 3.0
    orientation.ImageOrientationPatient = list(AXIAL)
    transformation.RescaleSlope, transformation.RescaleIntercept, transformation.RescaleType = 1.0, intercept, "HU"
    shared = Dataset()
    shared.PixelMeasuresSequence = DicomSequence([measures])
    shared.PlaneOrientationSequence = DicomSequence([orientation])
    shared.PixelValueTransformationSequence = DicomSequence([transformation])
    dataset.SharedFunctionalGroupsSequence = DicomSequence([shared])
    frames = []
    for position in positions:
        plane, frame = Dataset(), Dataset()
        plane.ImagePositionPatient = [f"{v:.9g}" for v in position]
        frame.PlanePositionSequence = DicomSequence([plane])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    add_pixels(dataset, np.rint(hu - intercept).astype(np.int16))
    return save(dataset, path)
