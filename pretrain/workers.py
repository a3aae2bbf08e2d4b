"""Volumes worked on in processes of this machine: one that kills its process is rejected, the others go on."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import SimpleITK as sitk

from nnunetv2_voco.pretrain.cache import VolumeCache
from nnunetv2_voco.pretrain.discover import VolumeSource
from nnunetv2_voco.pretrain.preprocess import Target
from nnunetv2_voco.pretrain.record import Record

CRASHED = "reading it killed its process: the file is damaged, or memory ran out (then try -np 1)"

Process = Callable[[VolumeSource, VolumeCache | None, Target], Record]
"""What is done to a volume."""


def process_in_workers(
    process: Process,
    sources: dict[int, VolumeSource],
    cache: VolumeCache | None,
    target: Target,
    *,
    num_processes: int,
) -> Iterator[tuple[int, Record]]:
    """Yield (index, record) as volumes are done, each read in a worker process: a damaged file may crash its reader.

    When a worker dies, the volumes that were being worked on are tried again one at a time, and the one that kills its
    worker again is rejected; then the others go on. With `num_processes` 0 everything happens in this process.
    """
    if num_processes == 0:
        for i, source in sources.items():
            yield i, process(source, cache, target)
        return
    pending = dict(sources)
    while pending:
        for i, record in _process_in_pool(process, dict(pending), cache, target, num_processes):
            if record is not None:
                del pending[i]
                yield i, record
        for i in list(pending)[: num_processes + 2]:  # a pool takes them in order, and two ahead of its workers
            for _, record in _process_in_pool(process, {i: pending.pop(i)}, cache, target, 1):
                yield i, record or Record(key="", reason=CRASHED)


def _process_in_pool(
    process: Process, sources: dict[int, VolumeSource], cache: VolumeCache | None, target: Target, num_processes: int
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
                futures[pool.submit(process, source, cache, target)] = i
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
