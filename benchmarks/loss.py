"""Measures the loss alone, forward and backward, as the batch grows.

    python benchmarks/loss.py [--volumes 2 8 32 128] [--repeats 5] [--device cuda]

Against the loss written with loops over volumes, crops and pairs (straightforward.py), with 2 random crops, 9 base
crops and embeddings of 1024 numbers. Both losses and their gradients are compared first. Linear growth shows as a time
per volume that does not rise.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from measure import Cost, describe_machine, measured, median, print_table, take_turns
from straightforward import looped_loss
from torch import Tensor

from nnunetv2_voco.pretrain.loss import voco_loss

RANDOM_CROPS, BASES, EMBEDDING = 2, 9, 1024
TOLERANCE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, nargs="+", default=[2, 8, 32, 128], metavar="N")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="small batches only")
    args = parser.parse_args()
    sizes, repeats = ([2, 8], 2) if args.quick else (args.volumes, args.repeats)
    torch.set_num_threads(1)
    print(describe_machine())
    rows = []
    for volumes in sizes:
        tensors = random_inputs(volumes, args.device)
        difference = largest_difference(tensors)
        if difference > TOLERANCE:
            raise SystemExit(f"{volumes} volumes: loss or gradient differ by {difference:.2g}, at most {TOLERANCE:g}")
        costs = take_turns(
            {"ours": partial(run, ours, tensors), "loops": partial(run, looped, tensors)},
            repeats + 1,  # the first warms up
        )
        fast, slow = (median(costs[name][1:]) for name in ("ours", "loops"))
        rows.append(
            [
                str(volumes),
                f"{fast * 1e3:.2f}",
                f"{slow * 1e3:.1f}",
                f"{fast / volumes * 1e6:.0f}",
                f"{slow / volumes * 1e6:.0f}",
                f"{slow / fast:.0f}",
            ]
        )
    print(f"\nProcessor time on {args.device}, {repeats} repeats")
    print_table(("volumes", "ours ms", "loops ms", "ours µs a volume", "loops µs a volume", "×"), rows)


def random_inputs(volumes: int, device: str) -> list[Tensor]:
    """Embeddings of student and teacher, then overlaps whose rows sum to 1 and are mostly 0."""
    generator = torch.Generator().manual_seed(0)
    crops = [torch.randn((volumes, RANDOM_CROPS, EMBEDDING), generator=generator) for _ in range(2)]
    bases = [torch.randn((volumes, BASES, EMBEDDING), generator=generator) for _ in range(2)]
    kept = torch.rand((volumes, RANDOM_CROPS, BASES), generator=generator)
    overlaps = torch.where(kept >= kept.sort(dim=-1, descending=True).values[..., 3:4], kept, 0)
    overlaps = overlaps / overlaps.sum(dim=-1, keepdim=True)
    return [tensor.to(device) for tensor in (*crops, *bases, overlaps)]


def ours(*tensors: Tensor) -> Tensor:
    return voco_loss(*tensors).total


def looped(*tensors: Tensor) -> Tensor:
    return looped_loss(*tensors)


def gradients(loss: Callable[..., Tensor], tensors: list[Tensor]) -> list[Tensor]:
    """The loss and its gradients by the student's crops and bases."""
    crops, crops_teacher, bases, bases_teacher, overlaps = tensors
    students = [tensor.clone().requires_grad_() for tensor in (crops, bases)]
    total = loss(students[0], crops_teacher, students[1], bases_teacher, overlaps)
    return [total.detach(), *torch.autograd.grad(total, students)]


def largest_difference(tensors: list[Tensor]) -> float:
    pairs = zip(gradients(ours, tensors), gradients(looped, tensors), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def run(loss: Callable[..., Tensor], tensors: list[Tensor]) -> Cost:
    def work() -> None:
        gradients(loss, tensors)
        if tensors[0].is_cuda:
            torch.cuda.synchronize()

    return measured(work)


if __name__ == "__main__":
    main()
