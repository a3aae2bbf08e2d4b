"""From folders to cached volumes: every source is checked and pre-processed once, in parallel, and accounted for."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from nnunetv2_voco.atomic import write_json
from nnunetv2_voco.pretrain.cache import Record, VolumeCache, volume_key
from nnunetv2_voco.pretrain.discover import SkippedFile, VolumeSource, discover
from nnunetv2_voco.pretrain.preprocess import Target, content_digest, orient, prepare
from nnunetv2_voco.pretrain.read import RejectedVolume, read_volume

LEAST_VOLUMES = 2

CRASHED = "reading it killed its process: the file is damaged, or memory ran out (then try -np 1)"


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
        rows: list[dict[str, Any]] = []
        for volume in self.volumes:
            record = asdict(volume.record)
            del record["histogram"], record["content"], record["fill"]
            status = (roles or {}).get(volume.record.key, "usable") if volume.record.usable else "rejected"
            rows.append({"name": volume.name, "format": volume.file_format, "status": status, **record})
        skipped = [{"name": s.name, "status": "skipped", "reason": s.reason} for s in self.skipped]
        write_json(path, {"volumes": rows, "skipped": skipped})

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
    records: dict[int, Record] = {}
    on_progress(0, len(found.sources))
    for index, record in _process_all(found.sources, cache, target, num_processes):
        records[index] = record
        on_progress(len(records), len(found.sources))
    volumes = [
        Collected(name=source.name, file_format=source.file_format, record=records[i])
        for i, source in enumerate(found.sources)
    ]
    return Collection(volumes=tuple(_without_copies(volumes)), skipped=found.skipped)


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


def _process_all(
    sources: Sequence[VolumeSource], cache: VolumeCache | None, target: Target, num_processes: int
) -> Iterator[tuple[int, Record]]:
    """Yield (index, record) as volumes are done, each read in a worker process: a damaged file may crash its reader.

    When a worker dies, the volumes that were being worked on are tried again one at a time, and the one that kills its
    worker again is rejected; then the others go on. With `num_processes` 0 everything happens in this process.
    """
    if num_processes == 0:
        for i, source in enumerate(sources):
            yield i, process_volume(source, cache, target)
        return
    pending = dict(enumerate(sources))
    while pending:
        for i, record in _process_in_pool(dict(pending), cache, target, num_processes):
            if record is not None:
                del pending[i]
                yield i, record
        for i in list(pending)[: num_processes + 2]:  # a pool takes them in order, and two ahead of its workers
            for _, record in _process_in_pool({i: pending.pop(i)}, cache, target, 1):
                yield i, record or Record(key="", reason=CRASHED)


def _process_in_pool(
    sources: dict[int, VolumeSource], cache: VolumeCache | None, target: Target, num_processes: int
) -> Iterator[tuple[int, Record | None]]:
    """Yield (index, record) for each source, None for those that were not done when a worker died."""
    if not sources:
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(num_processes, len(sources)), mp_context=context, initializer=_start_worker)
    try:
        futures: dict[Future, int] = {}
        for i, source in sources.items():
            try:
                futures[pool.submit(process_volume, source, cache, target)] = i
            except BrokenProcessPool:  # a worker died while volumes were still being handed out
                yield i, None
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except BrokenProcessPool:
                yield futures[future], None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; workers end with it
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _leave_with_parent() -> None:
    """End this worker when the process that started it was killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _without_copies(volumes: Sequence[Collected]) -> Iterator[Collected]:
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
