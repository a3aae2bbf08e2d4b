"""Volumes worked on by the workers of a Dask cluster that see the same file system. Needs the extra `dask`."""

from collections.abc import Iterator
from pathlib import Path

import SimpleITK as sitk

from nnunetv2_voco.pretrain.cache import VolumeCache
from nnunetv2_voco.pretrain.discover import VolumeSource
from nnunetv2_voco.pretrain.preprocess import Target
from nnunetv2_voco.pretrain.record import Record
from nnunetv2_voco.pretrain.workers import CRASHED, Process

AHEAD = 3
"""Volumes handed out per thread of the cluster: enough that none waits, and the scheduler never holds them all."""


def process_on_dask(
    process: Process,
    sources: dict[int, VolumeSource],
    cache: VolumeCache | None,
    target: Target,
    *,
    scheduler: str,
) -> Iterator[tuple[int, Record]]:
    """Yield (number, record) as volumes are done; what kills its worker again and again is rejected.

    Args:
        process: What is done to a volume.
        sources: The volumes by number.
        cache: Where to store; its folder must have the same path on every worker.
        target: What volumes are brought to.
        scheduler: Address of the scheduler, or the file it wrote with --scheduler-file.

    Raises:
        ValueError: If `distributed` is not installed, or no scheduler answers.
    """
    try:
        from distributed import Client, as_completed
        from distributed.scheduler import KilledWorker
    except ImportError:
        raise ValueError("--dask needs the package distributed: pip install 'nnunetv2_voco[dask]'") from None
    try:
        client = Client(**({"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}))
    except (OSError, ValueError) as error:
        raise ValueError(f"--dask {scheduler}: no scheduler answers there ({error})") from None
    with client:
        waiting = iter(sources.items())
        numbers = {}

        def hand_out(count: int) -> list:
            futures = []
            for number, source in (pair for _, pair in zip(range(count), waiting, strict=False)):
                future = client.submit(_process_alone, process, source, cache, target, pure=False)
                numbers[future.key] = number
                futures.append(future)
            return futures

        under_way = as_completed(hand_out(max(1, AHEAD * sum(client.nthreads().values()))))
        for future in under_way:
            try:
                record = future.result()
            except KilledWorker:
                record = Record(key="", reason=CRASHED)
            yield numbers.pop(future.key), record
            under_way.update(hand_out(1))


def _process_alone(process: Process, source: VolumeSource, cache: VolumeCache | None, target: Target) -> Record:
    """Process a volume with one thread, as every other thread of the worker has a volume of its own."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    return process(source, cache, target)
