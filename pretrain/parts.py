"""Pre-processing before and apart from training, in parts, and joining the parts: what `voco_preprocess` does."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from nnunetv2_voco.atomic import remove_abandoned
from nnunetv2_voco.pretrain.cache import VolumeCache
from nnunetv2_voco.pretrain.cached import cached_collection, cached_targets, describe_target
from nnunetv2_voco.pretrain.collect import ROWS_AT_ONCE, CollectError, Collection, process_sources, process_volume
from nnunetv2_voco.pretrain.config import PretrainConfig
from nnunetv2_voco.pretrain.dataset_plans import read_dataset_plans
from nnunetv2_voco.pretrain.log import progress_bar
from nnunetv2_voco.pretrain.on_dask import process_on_dask
from nnunetv2_voco.pretrain.record import Record
from nnunetv2_voco.pretrain.sources import BEGUN, Fate, SourceList, list_sources, load_names, merge_fates, note_fates
from nnunetv2_voco.pretrain.tables import print_table
from nnunetv2_voco.pretrain.training_plan import preprocessing_target
from nnunetv2_voco.pretrain.verify import find_faults, forget
from nnunetv2_voco.pretrain.workers import process_in_workers

SHOWN = 20
"""Volumes that are named where something is missing."""


@dataclass(frozen=True, kw_only=True)
class PartRequest:
    """What a user asks `voco_preprocess` for.

    Attributes:
        folders: Where the volumes lie.
        cache: Root of the cache.
        settings: Fields of `PretrainConfig` that decide what volumes are brought to.
        part: Number of this part, from 0.
        parts: How many parts there are.
        only_list: Whether to list the volumes, afresh, and stop.
        dask: Address or file of a Dask scheduler; None to work on this machine.
        num_processes: Volumes that are worked on at once on this machine.
    """

    folders: tuple[str, ...]
    cache: Path
    settings: dict[str, Any] = field(default_factory=dict)
    part: int = 0
    parts: int = 1
    only_list: bool = False
    dask: str | None = None
    num_processes: int = 4


def preprocess_part(request: PartRequest, console: Console) -> Collection:
    """Pre-process the volumes of one part, all of them if there is one part, and enter them in the cache's index.

    Raises:
        FileNotFoundError, ValueError: With a text for the user.
    """
    config = PretrainConfig(**request.settings)
    plans = None
    if config.dataset is not None:
        plans = read_dataset_plans(config.dataset, configuration=config.configuration, plans=config.plans)
    root = request.cache.absolute()
    cache = VolumeCache(root, preprocessing_target(config, plans))
    volumes = list_sources(
        root,
        request.folders,
        modality="CT" if plans is None else plans.modality,
        afresh=request.only_list or request.parts == 1,
        say=lambda text: console.print(text, highlight=False),
    )
    if request.only_list:
        console.print(f"{volumes.number} volumes found, {volumes.skipped} files or folders skipped.", highlight=False)
        return Collection(volumes=(), skipped=volumes.skipped_files())
    cache.create()
    kind = cache.folder.name
    note_fates(root, [Fate(kind, volumes.name, BEGUN, "", "", None)])  # should no part live to note its volumes
    sources = volumes.sources(request.folders, part=request.part, parts=request.parts)
    console.print(
        f"{len(sources)} of {volumes.number} volumes, to {describe_target(cache.target)}, in {cache.folder.name}",
        highlight=False,
    )
    work = (
        partial(process_in_workers, process_volume, num_processes=request.num_processes)
        if request.dask is None
        else partial(process_on_dask, process_volume, scheduler=request.dask)
    )
    with progress_bar(console, "Pre-processing volumes") as on_progress:
        done = process_sources(sources, cache, target=cache.target, work=work, on_progress=on_progress)
    note_fates(
        root,
        [
            Fate(kind, volumes.name, volume.name, volume.file_format, volume.record.key, volume.record.reason)
            for volume in done
        ],
    )
    collection = Collection(volumes=tuple(done), skipped=())
    rejected = [volume for volume in done if not volume.record.usable]
    for volume in rejected[:SHOWN]:
        console.print(f"  rejected: {escape(volume.name)}: {escape(volume.record.reason or '')}", highlight=False)
    console.print(f"{len(done) - len(rejected)} in the cache, {len(rejected)} rejected", highlight=False)
    return collection


def merge(root: Path, console: Console) -> bool:
    """Join all parts of a cache into one index per target; records that no part entered are found and entered.

    Temporary files that killed writers left long ago are removed.

    Returns:
        Whether every volume that was listed has been processed.

    Raises:
        CollectError: If there is no cache.
    """
    targets = cached_targets(root)
    if not targets:
        raise CollectError(f"{root}: no cache of pre-processed volumes; expected the folder that was given by -o")
    remove_abandoned(root / "sources")
    fates = merge_fates(root)
    complete = True
    for target in targets:
        cache = VolumeCache(root, target)
        remove_abandoned(cache.folder)
        for records in _unindexed(cache):
            cache.add_to_index(records)
        index = cache.merge_index()
        if len(index):
            collection = cached_collection(root, target)
            listed = root / "sources" / f"volumes_{cache.folder.name}.json"
            listed.parent.mkdir(exist_ok=True)
            collection.save(listed)
            print_table(collection, console, listed_in=str(listed))
        console.print(f"{cache.folder.name}: {len(index)} volumes at {describe_target(target)}", highlight=False)
        complete &= _report_missing(root, cache, [f for f in fates if f.target == cache.folder.name], console)
    return complete


def _unindexed(cache: VolumeCache) -> Iterator[list[Record]]:
    """Yield the records that are in the cache and not in its index, some at a time."""
    keys = list(cache.recorded_keys())
    rows = cache.open_index().rows(keys)
    missing = [key for key, row in zip(keys, rows, strict=True) if row < 0]
    for start in range(0, len(missing), ROWS_AT_ONCE):
        found = [cache.record(key) for key in missing[start : start + ROWS_AT_ONCE]]
        yield [record for record in found if record is not None]


def _report_missing(root: Path, cache: VolumeCache, fates: list[Fate], console: Console) -> bool:
    """Say which listed volumes failed in a way that may pass and which were never processed.

    Returns:
        Whether all were processed.
    """
    complete = True
    index = cache.open_index()
    for name in sorted({fate.list_name for fate in fates}):
        file = root / "sources" / f"{name}.jsonl.gz"
        if not file.exists():
            continue
        names = SourceList.open(file).names()
        listed = set(names)
        of_list = [fate for fate in fates if fate.list_name == name and fate.name in listed]
        rows = index.rows([fate.key for fate in of_list])
        there = {fate.name for fate, row in zip(of_list, rows, strict=True) if row >= 0}
        failed = {fate.name: fate.reason for fate in of_list if fate.name not in there}
        for volume, reason in list(failed.items())[:SHOWN]:
            console.print(f"  failed, may pass: {escape(volume)}: {escape(reason or '')}", highlight=False)
        missing = [volume for volume in names if volume not in there and volume not in failed]
        if failed or missing:
            more = f": {escape(', '.join(missing[:SHOWN]))}" + ("…" if len(missing) > SHOWN else "") if missing else ""
            console.print(
                f"{len(failed)} of {len(names)} volumes failed, {len(missing)} were not processed yet{more}. "
                "Run their parts again.",
                highlight=False,
            )
        complete &= not missing
    return complete


def verify(root: Path, console: Console, *, num_threads: int, forgetting: bool) -> int:
    """Check every volume of a cache and print what is wrong.

    Args:
        root: The cache.
        console: Where a person reads.
        num_threads: Volumes that are read at once.
        forgetting: Whether to take faulty volumes out, so that they are pre-processed anew.

    Returns:
        Number of faults, at most 1: the exit status.

    Raises:
        CollectError: If there is no cache.
    """
    targets = cached_targets(root)
    if not targets:
        raise CollectError(f"{root}: no cache of pre-processed volumes; expected the folder that was given by -o")
    names, faults = load_names(root), 0
    for target in targets:
        cache = VolumeCache(root, target)
        faulty = []
        with progress_bar(console, f"Verifying {cache.folder.name}") as on_progress:
            for key, fault in find_faults(cache, num_threads=num_threads, on_progress=on_progress):
                name = f" ({names[key][0]})" if key in names else ""
                console.print(f"  {key}{escape(name)}: {escape(fault)}", highlight=False)
                faulty.append(key)
        console.print(
            f"{cache.folder.name}: {len(cache.open_index())} volumes at {describe_target(target)}, "
            f"{len(faulty)} faulty",
            highlight=False,
        )
        if faulty and forgetting:
            forget(cache, frozenset(faulty))
            console.print("They are taken out; pre-process their folders again.", highlight=False)
        faults += len(faulty)
    return min(1, faults)
