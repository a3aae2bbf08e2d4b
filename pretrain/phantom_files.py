"""Phantoms as files: NIfTI volumes of mixed geometry and one DICOM series, as a folder of real scans would be."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset, validate_file_meta
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

from nnunetv2_voco.pretrain.phantom import MIN_HU, Phantom, make_phantom


class Protocol(NamedTuple):
    """How a volume is scanned and stored."""

    field: str
    slice_factor: float
    """Distance of slices, in units of the nominal spacing."""
    pixel_factor: float
    """Distance of pixels within a slice, in the same units."""
    stored_ras: bool
    """Whether the NIfTI file's axes run right, front and up instead of left, back and up."""


PROTOCOLS = (  # taken in turn
    Protocol("torso", 1, 1, stored_ras=False),
    Protocol("torso", 1, 1.1, stored_ras=True),
    Protocol("abdomen", 5 / 3, 0.9, stored_ras=False),
    Protocol("torso", 5 / 3, 1, stored_ras=True),
    Protocol("chest", 1, 0.95, stored_ras=False),
    Protocol("torso", 1, 1.05, stored_ras=False),
)


def write_phantoms(
    folder: str | Path, *, number: int = 12, seed: int = 0, spacing_mm: float = 3.0, dicom: bool = True
) -> list[Path]:
    """Write phantoms into a folder; the same seed gives the same bytes, and volume i does not depend on `number`.

    Args:
        folder: A new or empty folder.
        number: How many volumes.
        seed: Not negative.
        spacing_mm: Nominal distance of voxels; `PROTOCOLS` vary it.
        dicom: Whether the last volume is a folder with a DICOM series.

    Returns:
        The NIfTI files and the folder of the series.

    Raises:
        ValueError: An argument is impossible.
        FileExistsError: The folder is not empty.
    """
    folder = Path(folder)
    if number < 1 or seed < 0 or not 0.5 <= spacing_mm <= 10:
        raise ValueError(
            f"number {number}, seed {seed}, spacing {spacing_mm} mm: expected at least 1, at least 0, and 0.5 to 10 mm"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not an empty folder; give a new one")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(number):
        protocol = PROTOCOLS[index % len(PROTOCOLS)]
        pixel_mm = protocol.pixel_factor * spacing_mm
        phantom = make_phantom(
            np.random.default_rng((seed, index)),
            spacing_mm=(protocol.slice_factor * spacing_mm, pixel_mm, pixel_mm),
            field=protocol.field,
        )
        if dicom and index == number - 1:
            paths.append(folder / f"phantom_{index:03d}_dicom")
            write_dicom(phantom, paths[-1], uid_seed=f"voco phantom {seed} {index}")
        else:
            paths.append(folder / f"phantom_{index:03d}.nii.gz")
            image = to_sitk(phantom.image_zyx, phantom.spacing_mm, stored_ras=protocol.stored_ras)
            sitk.WriteImage(image, str(paths[-1]), useCompression=True, compressionLevel=1)
    return paths


def to_sitk(array_zyx: np.ndarray, spacing_mm: Sequence[float], *, stored_ras: bool = False) -> sitk.Image:
    """Return an image or a label map in space, the grid's centre at the origin.

    Args:
        array_zyx: Array in LPS order.
        spacing_mm: Distance of voxel centres along (z, y, x).
        stored_ras: Store the same voxels in the order RAS.
    """
    origin_zyx = -0.5 * (np.array(array_zyx.shape) - 1) * spacing_mm
    image = sitk.GetImageFromArray(array_zyx[:, ::-1, ::-1] if stored_ras else array_zyx)
    image.SetSpacing([float(step) for step in spacing_mm[::-1]])
    turn = -1.0 if stored_ras else 1.0
    image.SetDirection([turn, 0.0, 0.0, 0.0, turn, 0.0, 0.0, 0.0, 1.0])
    image.SetOrigin([turn * float(origin_zyx[2]), turn * float(origin_zyx[1]), float(origin_zyx[0])])
    return image


def write_dicom(phantom: Phantom, folder: Path, *, uid_seed: str) -> None:
    """Write a CT series, one file per slice from below, with the patient's name "PHANTOM".

    Args:
        phantom: The volume.
        folder: Is created.
        uid_seed: The unique identifiers are derived from this text.
    """
    folder.mkdir()
    number, rows, columns = phantom.image_zyx.shape
    step_z, step_y, step_x = phantom.spacing_mm
    left_mm, front_mm, low_mm = (
        -0.5 * (n - 1) * step for n, step in ((columns, step_x), (rows, step_y), (number, step_z))
    )
    uids = {part: generate_uid(entropy_srcs=[uid_seed, part]) for part in ("study", "series", "frame")}
    for index, slice_yx in enumerate(phantom.image_zyx):
        uid = generate_uid(entropy_srcs=[uid_seed, str(index)])
        path = folder / f"IM{index + 1:04d}.dcm"
        data = FileDataset(path, {}, preamble=b"\0" * 128, file_meta=_file_meta(uid), is_implicit_VR=False)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, uid
        data.StudyInstanceUID, data.SeriesInstanceUID = uids["study"], uids["series"]
        data.FrameOfReferenceUID, data.PositionReferenceIndicator = uids["frame"], ""
        data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "PHANTOM", "PHANTOM", "", "O"
        data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20000101", "000000", "1", ""
        data.ReferringPhysicianName, data.Manufacturer, data.SeriesDescription = "", "PHANTOM", "Torso phantom"
        data.Modality, data.ImageType, data.KVP = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], "120"
        data.SeriesNumber, data.AcquisitionNumber, data.InstanceNumber = 1, 1, index + 1
        data.PatientPosition, data.ImageOrientationPatient = "HFS", [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = _decimals(left_mm, front_mm, low_mm + index * step_z)
        data.PixelSpacing = _decimals(step_y, step_x)
        (data.SliceThickness,) = (data.SpacingBetweenSlices,) = _decimals(step_z)
        data.Rows, data.Columns = rows, columns
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
        data.RescaleIntercept, data.RescaleSlope, data.RescaleType = MIN_HU, 1, "HU"
        data.WindowCenter, data.WindowWidth = 40, 400
        data.PixelData = (slice_yx - MIN_HU).astype("<u2").tobytes()
        data.save_as(path)


def _file_meta(uid: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0  # is computed on writing
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, UID(uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    validate_file_meta(meta)
    return meta


def _decimals(*values: float) -> list[str]:
    """Return decimal strings as DICOM allows them, at most 16 characters."""
    return [f"{value:.6f}" for value in values]
