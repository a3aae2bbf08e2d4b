"""From folders to cached volumes: every source is checked and pre-processed once, in parallel, and accounted for."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import SimpleITK as sitk

from nnunetv2_voco.atomic import remove_abandoned, write_atomically
from nnunetv2_voco.pretrain.cache import VolumeCache, volume_key
from nnunetv2_voco.pretrain.discover import SkippedFile, VolumeSource, discover
from nnunetv2_voco.pretrain.index import VolumeIndex
from nnunetv2_voco.pretrain.preprocess import Target, content_digest, orient, prepare
from nnunetv2_voco.pretrain.read import RejectedVolume, read_volume
from nnunetv2_voco.pretrain.record import Record
from nnunetv2_voco.pretrain.workers import process_in_workers

LEAST_VOLUMES = 2

ROWS_AT_ONCE = 1000
"""Volumes after which those that were done enter the index, and their histograms leave the memory."""

LISTED = ("key", "shape", "mended", "original_shape", "original_spacing_mm", "bytes", "reason")
"""What volumes.json tells of a record."""

Work = Callable[[dict[int, VolumeSource], VolumeCache | None, Target], Iterator[tuple[int, Record]]]
"""What processes many volumes, here or elsewhere, and yields each one's number and record as it is done."""


class CollectError(RuntimeError):
    """No run can start with what was found."""


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What became of one source.

    Attributes:
        name: As in `VolumeSource`.
        file_format: As in `VolumeSource`.
        record: Its record in the cache; `record.reason` says why it is not used.
    """

    name: str
    file_format: str
    record: Record


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Everything that was found.

    Attributes:
        volumes: Every source with its record, sorted by name.
        skipped: What is no CT volume.
    """

    volumes: tuple[Collected, ...]
    skipped: tuple[SkippedFile, ...]

    @property
    def usable(self) -> list[Collected]:
        """The volumes that can be trained on."""
        return [v for v in self.volumes if v.record.usable]

    def save(self, path: Path, roles: dict[str, str] | None = None) -> None:
        """Write the list of volumes as JSON.

        Args:
            path: The file.
            roles: What each key is used for: "training" or "validation".
        """

        def write(temporary: Path) -> None:  # row by row: there may be 160,000
            with temporary.open("w", encoding="utf-8") as file:
                file.write('{"volumes": [')
                _write_rows(file, (self._row(volume, roles or {}) for volume in self.volumes))
                file.write('], "skipped": [')
                _write_rows(file, ({"name": s.name, "status": "skipped", "reason": s.reason} for s in self.skipped))
                file.write("]}\n")

        write_atomically(path, write)

    @staticmethod
    def _row(volume: Collected, roles: dict[str, str]) -> dict[str, Any]:
        record = {name: getattr(volume.record, name) for name in LISTED}
        status = roles.get(volume.record.key, "usable") if volume.record.usable else "rejected"
        return {"name": volume.name, "format": volume.file_format, "status": status, **record}

    def require_usable(self) -> None:
        """Check that there is enough to train on.

        Raises:
            CollectError: If there are fewer than two usable volumes.
        """
        if len(self.usable) < LEAST_VOLUMES:
            raise CollectError(
                f"{len(self.usable)} usable volume(s) found, at least {LEAST_VOLUMES} are needed; "
                f"{len(self.volumes) - len(self.usable)} rejected and {len(self.skipped)} skipped, "
                "each with its reason in the table above and in volumes.json"
            )


def collect(
    folders: Sequence[str | os.PathLike],
    cache: VolumeCache | None,
    *,
    target: Target,
    modality: str,
    num_processes: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Collection:
    """Find, check and pre-process every volume; what the cache already holds is not read again.

    Args:
        folders: Where to look.
        cache: Where to store; None to check only.
        target: What volumes are brought to.
        modality: Which modality to look for, as DICOM names it.
        num_processes: Volumes worked on at once, each in a process of its own; 0 works in this one.
        on_progress: Called with the number of volumes done and in all.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    found = discover(folders, modality=modality)
    if cache is not None:
        cache.create()
    volumes = process_sources(
        found.sources,
        cache,
        target=target,
        work=partial(process_in_workers, process_volume, num_processes=num_processes),
        on_progress=on_progress,
    )
    if cache is not None:
        remove_abandoned(cache.folder)
        cache.merge_index()
    return Collection(volumes=tuple(without_copies(volumes)), skipped=found.skipped)


def process_sources(
    sources: Sequence[VolumeSource],
    cache: VolumeCache | None,
    *,
    target: Target,
    work: Work,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Collected]:
    """Check and pre-process volumes and enter them in the cache's index; what is in it is not read again.

    Args:
        sources: The volumes.
        cache: Where to store; None to check only.
        target: What volumes are brought to.
        work: Processes those that are not in the index.
        on_progress: Called with the number of volumes done and in all.

    Returns:
        Every source with its record, without histograms, in the order of the sources.
    """
    records: dict[int, Record] = {}
    fresh: list[Record] = []
    on_progress(0, len(sources))
    if cache is not None and len(index := cache.open_index()):
        records = {i: r for i, source in enumerate(sources) if (r := _indexed(source, cache, index)) is not None}
        on_progress(len(records), len(sources))
    pending = {i: source for i, source in enumerate(sources) if i not in records}
    try:
        for i, record in work(pending, cache, target):
            records[i] = replace(record, histogram=None)
            if cache is not None and (record.usable or cache.read_record(record.key) is not None):
                fresh.append(record)
            if cache is not None and len(fresh) >= ROWS_AT_ONCE:
                cache.add_to_index(fresh)
                fresh.clear()
            on_progress(len(records), len(sources))
    finally:
        if cache is not None:
            cache.add_to_index(fresh)
    return [
        Collected(name=source.name, file_format=source.file_format, record=records[i])
        for i, source in enumerate(sources)
    ]


def _indexed(source: VolumeSource, cache: VolumeCache, index: VolumeIndex) -> Record | None:
    """Return a source's record if the index has it and its array is there."""
    try:
        (row,) = index.rows([volume_key(source.fingerprint())])
    except OSError:
        return None
    if row < 0 or not cache.is_whole(record := index.record(int(row))):
        return None
    return record


def process_volume(source: VolumeSource, cache: VolumeCache | None, target: Target) -> Record:
    """Check one source and store it; return its record, new or as it was."""
    try:
        key = volume_key(source.fingerprint())
    except OSError as error:
        return Record(key="", reason=f"cannot be opened ({error.strerror})")
    known = cache.record(key) if cache is not None else None
    if known is not None:
        return known
    try:
        raw = read_volume(source, hounsfield=target.hounsfield)
        geometry = {
            "mended": raw.mended,
            "original_shape": tuple(int(n) for n in raw.image.GetSize()[::-1]),
            "original_spacing_mm": tuple(round(float(s), 4) for s in raw.image.GetSpacing()[::-1]),
        }
        if cache is None:
            image = orient(raw.image)
            return Record(key=key, shape=_expected_shape(image, target), content=content_digest(image), **geometry)
        return cache.write(geometry, prepare(raw.image, target), key=key)
    except (RejectedVolume, ValueError) as error:
        transient = isinstance(error.__context__, (OSError, MemoryError))  # may go well the next time
        if cache is None or transient:
            return Record(key=key, reason=str(error))
        return cache.reject(key, str(error))
    except Exception as error:  # a reader's own failure must not end a run over thousands of volumes
        return Record(key=key, reason=f"could not be processed ({type(error).__name__})")


def _expected_shape(oriented: sitk.Image, target: Target) -> tuple[int, int, int]:
    """Shape that a volume takes at the target spacing, before it is cropped to the body."""
    extent_mm = [n * s for n, s in zip(oriented.GetSize(), oriented.GetSpacing(), strict=True)][::-1]
    pairs = zip(target.transpose, target.spacing_mm, strict=True)
    z, y, x = (max(1, round(extent_mm[axis] / spacing)) for axis, spacing in pairs)
    return z, y, x


def without_copies(volumes: Sequence[Collected]) -> Iterator[Collected]:
    """Reject every volume whose voxels were already there under another name."""
    first_name: dict[str, str] = {}
    for volume in volumes:
        content = volume.record.content
        if volume.record.usable and content and content in first_name:
            reason = f"the same voxels as {first_name[content]}"
            yield replace(volume, record=replace(volume.record, reason=reason))
            continue
        first_name.setdefault(content, volume.name)
        yield volume


def _write_rows(file: TextIO, rows: Iterable[dict[str, Any]]) -> None:
    """Write a JSON list's items, one a line."""
    separator = "\n  "
    for row in rows:
        file.write(separator + json.dumps(row))
        separator = ",\n  "
    file.write("\n")
