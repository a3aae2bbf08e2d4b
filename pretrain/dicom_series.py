"""DICOM headers → the series that are volumes, with their slices in order, and reasons for everything else."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_voco.pretrain.dicom import PHASE_TAGS, DicomHeader

LEAST_SLICES = 5
OTHER_IMAGES = frozenset("BI CR CT DG DX ES GM IO IVUS LS MG MR NM OCT OP OPT OT PT PX RF RG SM TG US XA XC".split())
NOT_IMAGES = frozenset("AU DOC ECG EPS KO M3D PLAN PR REG RTDOSE RTIMAGE RTPLAN RTRECORD RTSTRUCT SEG SR".split())
_LOCALIZERS = frozenset(("LOCALIZER", "SCOUT", "TOPOGRAM"))
_PROJECTIONS = frozenset(("MIP", "MINIP", "VRT", "PROJECTION IMAGE"))


@dataclass(frozen=True, kw_only=True)
class DicomGroup:
    """Files of a folder that form one volume (`reason` None) or are none for a common reason."""

    folder: Path
    files: tuple[Path, ...]
    reason: str | None = None


def group_series(headers: Iterable[DicomHeader], *, modality: str = "CT") -> list[DicomGroup]:
    """Sort headers into volumes and skipped groups, ordered by folder and series number.

    Args:
        headers: From all folders of interest; one series may be spread over several of them.
        modality: DICOM modality sought, or "any".
    """
    skipped: dict[tuple[Path, str], list[DicomHeader]] = defaultdict(list)
    series: dict[tuple, dict[Path, list[DicomHeader]]] = defaultdict(lambda: defaultdict(list))
    volumes: list[list[DicomHeader]] = []
    for header in headers:
        folder = header.path.parent
        if reason := _why_no_slice(header, modality):
            skipped[folder, reason].append(header)
        elif header.frames > 1:
            volumes.append([header])
        else:
            known = all(header.series)  # without UIDs only files of one folder can belong together
            series[header.series if known else (folder, *header.series)][folder].append(header)
    for by_folder in series.values():
        for members in _merge_folders(by_folder):
            for slices in _split(members):
                if len(slices) < LEAST_SLICES:
                    count = f"{len(slices)} slice{'s' * (len(slices) > 1)}"
                    skipped[_common_folder(slices), f"DICOM series of only {count}"].extend(slices)
                else:
                    volumes.append(slices)
    volumes.sort(key=lambda v: (_common_folder(v), v[0].series_number, v[0].instance_number, v[0].path))
    groups = [DicomGroup(folder=_common_folder(v), files=tuple(h.path for h in v)) for v in volumes]
    for (folder, reason), members in sorted(skipped.items()):
        files = tuple(sorted(h.path for h in members))
        groups.append(DicomGroup(folder=folder, files=files, reason=reason))
    return groups


def _why_no_slice(header: DicomHeader, modality: str) -> str | None:
    """Reason why a file is no slice of a volume sought, or None."""
    if not header.modality:
        return "DICOM without a modality"
    if header.modality != modality.upper() and (modality != "any" or header.modality in NOT_IMAGES):
        known = header.modality in OTHER_IMAGES | NOT_IMAGES  # a damaged header may hold anything in this place
        return f"DICOM modality {header.modality}" if known else "DICOM of an unknown modality"
    if header.shape is None:
        return "DICOM without an image"
    if header.samples > 1:
        return "RGB image"
    if _LOCALIZERS & set(header.image_type):
        return "localizer"
    if _PROJECTIONS & set(header.image_type):
        return "projection through the volume, not slices of it"
    if header.frames > 1:
        return None if header.frames >= LEAST_SLICES else f"DICOM file of only {header.frames} frames"
    for name in ("position", "orientation", "spacing"):
        if getattr(header, name) is None:
            return f"DICOM without slice {name}" if name != "spacing" else "DICOM without pixel spacing"
    if np.linalg.norm(np.cross(*np.reshape(header.orientation, (2, 3)))) < 0.5:
        return "DICOM slice orientation spans no plane"
    return None


def _merge_folders(by_folder: dict[Path, list[DicomHeader]]) -> list[list[DicomHeader]]:
    """One list where the folders hold parts of one series, else one list per folder.

    Parts fit where no instance is found twice and all slices together lie evenly; two copies of a series, or two
    phases of it, do not.
    """
    together = [header for headers in by_folder.values() for header in headers]
    if len(by_folder) == 1:
        return [together]
    instances = {header.instance for header in together}
    if len(instances) == len(together) and len(_by_plane(together)) == 1:
        gaps = np.diff(sorted(header.along_mm for header in together))
        if _repeats(together) == 0 and gaps.max() <= 2.5 * np.median(gaps):
            return [together]
    return list(by_folder.values())


def _split(headers: list[DicomHeader]) -> list[list[DicomHeader]]:
    """Divide the files of a series into volumes with one plane, pixel grid and phase, each in order of position."""
    volumes = []
    for plane in _by_plane(headers):
        unique = {(h.instance or str(h.path), h.position): h for h in sorted(plane, key=lambda h: h.path, reverse=True)}
        volumes += _split_phases(list(unique.values()))
    return [sorted(volume, key=lambda h: (h.along_mm, h.instance_number, h.path)) for volume in volumes]


def _by_plane(headers: list[DicomHeader]) -> list[list[DicomHeader]]:
    """Group by orientation, pixel spacing and size, within the rounding of headers."""
    planes: list[list[DicomHeader]] = []
    for header in headers:
        for plane in planes:
            first = plane[0]
            if (
                header.shape == first.shape
                and np.allclose(header.orientation or (), first.orientation or (), rtol=0, atol=2e-3)
                and np.allclose(header.spacing or (), first.spacing or (), rtol=1e-3, atol=0)
            ):
                plane.append(header)
                break
        else:
            planes.append([header])
    return planes


def _repeats(headers: list[DicomHeader]) -> int:
    """Number of slices that lie where another one lies, or hardly beside it."""
    gaps = np.diff(sorted(header.along_mm for header in headers))
    return int((gaps < max(0.01, 0.05 * float(np.median(gaps)))).sum()) if len(gaps) else 0


def _split_phases(headers: list[DicomHeader]) -> list[list[DicomHeader]]:
    """Split a series whose slice positions repeat (phases, kernels, energies), or whose acquisitions interleave."""
    gaps = np.diff(sorted(header.along_mm for header in headers))
    if not len(gaps) or (_repeats(headers) == 0 and gaps.max() <= 1.5 * np.median(gaps)):
        return [headers]
    for i in range(len(PHASE_TAGS)):
        parts = _divide(headers, [h.phase[i] for h in headers])
        if len(parts) > 1 and _are_volumes(parts) and _overlap(parts):
            return parts
    parts = _divide(headers, [h.phase for h in headers])
    if len(parts) > 1 and _are_volumes(parts) and _overlap(parts):
        return parts
    seen: Counter = Counter()
    occurrence = {}
    for header in sorted(headers, key=lambda h: (h.instance_number, h.path)):
        place = round(header.along_mm / 0.05)
        occurrence[header.path] = seen[place]
        seen[place] += 1
    if len(set(seen.values())) == 1:  # every position as often as every other: the k-th one belongs to phase k
        parts = _divide(headers, [occurrence[h.path] for h in headers])
        if len({h.instance_number for h in headers}) == len(headers) and _are_volumes(parts):
            return parts
    return [headers]  # reading it says what is wrong


def _divide(headers: list[DicomHeader], keys: list[Any]) -> list[list[DicomHeader]]:
    parts = defaultdict(list)
    for header, key in zip(headers, keys, strict=True):
        parts[key].append(header)
    return [parts[k] for k in sorted(parts)]


def _are_volumes(parts: list[list[DicomHeader]]) -> bool:
    """Whether nearly all slices are in parts which are large enough and without repeated positions."""
    good = sum(len(part) for part in parts if len(part) >= LEAST_SLICES and _repeats(part) == 0)
    return good >= 0.9 * sum(len(part) for part in parts)


def _overlap(parts: list[list[DicomHeader]]) -> bool:
    """Whether the ranges of two parts overlap: side by side they are one volume taken in steps."""
    ranges = sorted((min(h.along_mm for h in p), max(h.along_mm for h in p)) for p in parts)
    return any(low <= before[1] + 0.01 for before, (low, _) in zip(ranges, ranges[1:], strict=False))


def _common_folder(headers: Sequence[DicomHeader]) -> Path:
    return Path(os.path.commonpath([header.path.parent for header in headers]))
