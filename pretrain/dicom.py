"""Headers of DICOM files: what discovery needs of them, read without pixels, several files at a time."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

_TAGS = (
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID SeriesNumber Modality ImageType Rows Columns "
    "NumberOfFrames SamplesPerPixel ImagePositionPatient ImageOrientationPatient PixelSpacing InstanceNumber "
    "AcquisitionNumber TemporalPositionIdentifier TemporalPositionIndex TriggerTime NominalPercentageOfCardiacPhase "
    "KVP ConvolutionKernel EchoNumbers"
).split()
PHASE_TAGS = (
    "AcquisitionNumber TemporalPositionIdentifier TemporalPositionIndex TriggerTime NominalPercentageOfCardiacPhase "
    "KVP ConvolutionKernel EchoNumbers ImageType"
).split()
_THREADS = 8  # fetch from slow drives ahead of the one thread that parses: several would fight for Python's lock
_USUAL_HEADER = 1 << 14


@dataclass(frozen=True, kw_only=True)
class DicomHeader:
    """Of one file what grouping needs. UIDs live only here, during discovery, and are kept out of the repr."""

    path: Path
    modality: str
    image_type: tuple[str, ...]
    shape: tuple[int, int] | None
    frames: int
    samples: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    series_number: int
    instance_number: int
    series: tuple[str, str] = field(repr=False)
    instance: str = field(repr=False)
    phase: tuple[str, ...] = field(repr=False)

    @property
    def along_mm(self) -> float:
        """Position along the slice normal, of headers that have a position and an orientation."""
        assert self.orientation is not None
        assert self.position is not None
        (a, b, c), (d, e, f) = self.orientation[:3], self.orientation[3:]
        x, y, z = self.position
        return (b * f - c * e) * x + (c * d - a * f) * y + (a * e - b * d) * z  # plain: called for every comparison


def read_headers(paths: Sequence[Path]) -> tuple[list[DicomHeader], list[tuple[Path, str]]]:
    """Read the headers of all files that are DICOM, several at a time.

    Args:
        paths: Any files; without the magic "DICM" only .dcm, .ima and the like are tried.

    Returns:
        The headers, and (path, reason) of files whose header cannot be read. Files that are no DICOM are in neither.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor(_THREADS) as pool:
        warnings.simplefilter("ignore")  # pydicom quotes invalid values, which may be the patient's
        results = [_read_header(path, magic) for path, magic in zip(paths, pool.map(_fetch, paths), strict=True)]
    headers = [result for result in results if isinstance(result, DicomHeader)]
    return headers, [(path, result) for path, result in zip(paths, results, strict=True) if isinstance(result, str)]


def _fetch(path: Path) -> bytes | OSError:
    """Bytes 128 to 132 of the file, where DICOM has its magic, having brought the usual extent of a header near."""
    try:
        with path.open("rb") as file:
            return file.read(_USUAL_HEADER)[128:132]
    except OSError as error:
        return error


def _read_header(path: Path, magic: bytes | OSError) -> DicomHeader | str | None:
    """The header, a reason why it cannot be read, or None for a file that is no DICOM."""
    from pydicom import dcmread

    if isinstance(magic, OSError):
        return f"header cannot be read ({(magic.strerror or 'the file cannot be opened').lower()})"
    if magic != b"DICM" and path.suffix.lower() not in (".dcm", ".ima", ".dicom", ".dic"):
        return None
    try:
        return _to_header(path, dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(_TAGS)))
    except Exception:  # a damaged header can raise anything in pydicom, and the text would quote it
        return "header cannot be read (no or damaged DICOM)"


def _to_header(path: Path, dataset: Any) -> DicomHeader | str:
    if "SOPClassUID" not in dataset and "Modality" not in dataset:
        return "header cannot be read (no or damaged DICOM)"
    phase = tuple(str(dataset.get(name, "")) for name in PHASE_TAGS)
    return DicomHeader(
        path=path,
        modality=str(dataset.get("Modality", "") or "").strip().upper(),
        image_type=tuple(str(value).upper() for value in _as_list(dataset.get("ImageType"))),
        shape=(int(dataset.Rows), int(dataset.Columns)) if dataset.get("Rows") and dataset.get("Columns") else None,
        frames=int(dataset.get("NumberOfFrames") or 1),
        samples=int(dataset.get("SamplesPerPixel") or 1),
        position=_numbers(dataset.get("ImagePositionPatient"), 3),
        orientation=_numbers(dataset.get("ImageOrientationPatient"), 6),
        spacing=_numbers(dataset.get("PixelSpacing"), 2),
        series_number=int(dataset.get("SeriesNumber") or 0),
        instance_number=int(dataset.get("InstanceNumber") or 0),
        series=(str(dataset.get("StudyInstanceUID") or ""), str(dataset.get("SeriesInstanceUID") or "")),
        instance=str(dataset.get("SOPInstanceUID") or ""),
        phase=phase,
    )


def _as_list(value: Any) -> list:
    if value is None or isinstance(value, str):
        return [value] if value else []
    return list(value)


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    numbers = tuple(float(v) for v in _as_list(value))
    return numbers if len(numbers) == count and all(np.isfinite(numbers)) else None
