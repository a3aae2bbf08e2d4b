"""The few collective operations of a run; on a single process each of them does nothing."""

import gc
import os
import time
import uuid
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(days=7)
"""How long processes wait for the one that pre-processes."""

POLLING_SECONDS = 0.05


def launched() -> bool:
    """Whether torchrun started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def join_store() -> dist.Store | None:
    """Meet the other processes, before the process group: waiting here has no time limit that pre-processing meets."""
    if not launched() or dist.is_initialized():
        return None
    store, _rank, _world_size = next(dist.rendezvous("env://", timeout=PATIENCE))
    return store


def publish(store: dist.Store | None, key: str, value: str) -> None:
    """Let the processes that wait for `key` go on."""
    if store is not None:
        store.set(key, value)


def wait_for(store: dist.Store | None, key: str) -> None:
    """Wait until a process publishes `key`."""
    if store is not None:
        store.wait([key], PATIENCE)


def start(device: str, store: dist.Store | None) -> None:
    """Form the process group of the processes that met in `store`."""
    if store is not None:
        dist.init_process_group(
            "nccl" if device.startswith("cuda") else "gloo",
            store=dist.PrefixStore(meet(store, rank=rank(), world_size=world_size()), store),
            rank=rank(),
            world_size=world_size(),
        )


def meet(store: dist.Store, *, rank: int, world_size: int) -> str:
    """Wait until all processes are here that are alive, and agree on a name that no earlier ones have used.

    After a restart torchrun may hand out the store of a meeting that failed, in which the addresses of processes lie
    that have ended since; a group that is formed under the same name would wait for them. So the first process gives
    each of the others the name of a new meeting, again whenever another one says hello in its place, until all of them
    have answered.

    Args:
        store: Where they meet.
        rank: Index of this process.
        world_size: Number of processes.

    Returns:
        The same name in every process.
    """
    own = uuid.uuid4().hex
    if rank > 0:
        store.set(f"hello/{rank}", own)
        store.wait([f"welcome/{own}"], PATIENCE)
        name = store.get(f"welcome/{own}").decode()
        store.set(f"answer/{rank}/{name}", "1")
        return name
    awaited, welcomed = set(range(1, world_size)), set()
    while awaited:
        for other in tuple(awaited):
            if store.check([f"answer/{other}/{own}"]):
                awaited.remove(other)
            elif store.check([f"hello/{other}"]):
                newcomer = store.get(f"hello/{other}").decode()
                if newcomer not in welcomed:
                    store.set(f"welcome/{newcomer}", own)
                    welcomed.add(newcomer)
        time.sleep(POLLING_SECONDS if awaited else 0)
    return own


def stop() -> None:
    """Leave the process group, if there is one.

    What wrapped a model refers to the group and may lie in a cycle. Were it collected when the interpreter ends, gloo's
    threads would still run then, and the process would end by SIGABRT.
    """
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()
        gc.collect()


def rank() -> int:
    """Index of this process, from 0; known before `start` as torchrun sets it."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Index of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """Number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def world_size() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is set in at least one process."""
    if not dist.is_initialized():
        return flag
    value = torch.tensor(int(flag), device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def broadcast_object(value: Any) -> Any:
    """Return rank 0's `value` in every process."""
    if not dist.is_initialized():
        return value
    holder = [value]
    dist.broadcast_object_list(holder, src=0)
    return holder[0]


def same_in_all(value: Any) -> bool:
    """Whether all processes hold an equal value."""
    if not dist.is_initialized():
        return True
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return all(other == value for other in values)


def lost_another(error: RuntimeError) -> bool:
    """Whether an error says that another process has gone; gloo has no class of its own for it."""
    return dist.is_initialized() and (isinstance(error, dist.DistError) or "gloo" in str(error))


def barrier() -> None:
    """Wait until every process is here."""
    if dist.is_initialized():
        dist.barrier()


def gather(local: Tensor) -> Tensor:
    """Concatenate a tensor of equal shape over all processes along the first axis, in the order of ranks.

    Every process computes the same loss from the result, as one process with the larger batch would. The gradient
    that returns to `local` is multiplied by the number of processes: DistributedDataParallel then averages gradients,
    and the mean of the encoder's is the sum that the larger batch has, while those behind the gathering, equal in
    every process, stay what they are.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return local
    return _Gather.apply(local)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient.chunk(dist.get_world_size())[dist.get_rank()] * dist.get_world_size()
