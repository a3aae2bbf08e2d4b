"""Volumes worked on by the workers of a Dask cluster that see the same file system. Needs the extra `dask`."""

from collections.abc import Iterator
from itertools import islice
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
    """Yield (number, record) as volumes are done; what kills its worker again and again, in the end alone, is rejected.

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
        from distributed import Client, Future, as_completed
        from distributed.scheduler import KilledWorker
    except ImportError:
        raise ValueError("--dask needs the package distributed: pip install 'nnunetv2_voco[dask]'") from None
    try:
        client = Client(**({"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}))
    except (OSError, ValueError) as error:
        raise ValueError(f"--dask {scheduler}: no scheduler answers there ({error})") from None
    with client:
        waiting = iter(sources)
        numbers: dict[str, int] = {}
        killed: list[int] = []

        def submit(number: int) -> Future:
            future = client.submit(_process_alone, process, sources[number], cache, target, pure=False)
            numbers[future.key] = number
            return future

        at_once = max(1, AHEAD * sum(client.nthreads().values()))
        under_way = as_completed([submit(number) for number in islice(waiting, at_once)])
        for future in under_way:
            number = numbers.pop(future.key)
            try:
                yield number, future.result()
            except KilledWorker:
                killed.append(number)
            under_way.update([submit(number) for number in islice(waiting, 1)])
        for number in killed:  # Dask blames all that a dying worker had been given; alone, only the killer dies again
            try:
                yield number, submit(number).result()
            except KilledWorker:
                yield number, Record(key="", reason=CRASHED)


def _process_alone(process: Process, source: VolumeSource, cache: VolumeCache | None, target: Target) -> Record:
    """Process a volume with one thread, as every other thread of the worker has a volume of its own."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    return process(source, cache, target)
