"""Measures one optimiser step: forward pass, loss, backward pass, AdamW, with the 31 M plain encoder.

    python benchmarks/step.py [--volumes 2] [--grid 1 1 3] [--random-crops 1] [--only NAME …] [--device cuda]

Ours against the straightforward way: every volume's crops and bases pass the encoder by themselves, and the loss is
written with loops over volumes, crops and pairs (straightforward.py). Same networks, same crops of 64³, same optimiser;
the loss of the first step has to be equal. Ours is as voco_pretrain runs: on a CPU with its own layers and with freed
memory kept by the C library, where there is enough. Then the straightforward way with memory kept as well, and ours in
other ways: with memory returned to the system (`--no-keep-memory`), channels_last_3d, bf16 autocast, compiled, with
the encoder's stages recomputed (activation checkpointing), and in chunks of one crop (`--chunk 1`). Each in a process
of its own, with a warm-up step first.

The default batch of 8 crops stays below 8 GB. The step of the default settings has 40 crops (about 13 GB in fp32):

    python benchmarks/step.py --volumes 4 --grid 2 2 2 --random-crops 2

What only a GPU shows, there:

    python benchmarks/step.py --device cuda --volumes 4 --grid 2 2 2 --random-crops 2 --steps 20 --repeats 5

Goal: 1.5 times as many crops per second as the straightforward way, in fp32 on a CPU.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from measure import Cost, describe_machine, in_own_process, median, memory_mb, print_table, take_turns
from straightforward import StraightforwardModel
from torch import nn
from torch.utils.checkpoint import checkpoint

from nnunetv2_voco.encoder import PLAIN_FEATURES, plain_architecture
from nnunetv2_voco.pretrain.allocator import keep_freed_memory
from nnunetv2_voco.pretrain.cpu_layers import use_cpu_layers
from nnunetv2_voco.pretrain.crops import base_corners, overlap_fractions, region_size
from nnunetv2_voco.pretrain.model import VoCoModel, update_momentum
from nnunetv2_voco.pretrain.precision import autocast_context

STRAIGHTFORWARD, OURS = "straightforward", "ours"
THEIRS_KEPT, RETURNED = "straightforward, memory kept", "memory returned"
WAYS = (STRAIGHTFORWARD, THEIRS_KEPT, OURS, RETURNED, "channels_last", "bf16", "compiled", "checkpointed", "chunk")
CROP = (64, 64, 64)
TOLERANCE = 1e-3
WEIGHTS = {"intra_weight": 1.0, "inter_weight": 1.0, "reg_weight": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=2, help="volumes in the batch")
    parser.add_argument("--grid", type=int, nargs=3, default=(1, 1, 3), metavar=("Z", "Y", "X"), help="base crops")
    parser.add_argument("--random-crops", type=int, default=1, help="random crops of a volume")
    parser.add_argument("--steps", type=int, default=1, help="steps of one measurement")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each way")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=WAYS, metavar="NAME", help=f"of {', '.join(WAYS)}")
    parser.add_argument("--quick", action="store_true", help="a narrow encoder, one repeat, three ways")
    args = parser.parse_args()
    if args.quick:
        args.repeats, args.only = 1, (STRAIGHTFORWARD, OURS, "chunk")
    features = (4, 8, 8, 8, 8, 8) if args.quick else PLAIN_FEATURES
    crops = args.volumes * (args.random_crops + int(torch.tensor(args.grid).prod()))
    print(describe_machine())
    print(f"{args.volumes} volumes, {crops} crops of 64³, {args.threads} threads on {args.device}", flush=True)
    shape = (args.volumes, args.random_crops, tuple(args.grid))
    work = (features, *shape, args.steps, args.device)
    costs = take_turns(
        {way: partial(in_own_process, step_of, way, *work, threads=args.threads) for way in args.only}, args.repeats
    )
    check_equal(costs)
    base = median(costs[STRAIGHTFORWARD]) if STRAIGHTFORWARD in costs else float("nan")
    rows = []
    for way, measured in costs.items():
        clock, cpu = (median(measured, field) / args.steps for field in ("seconds", "cpu_seconds"))
        peak = max(cost.result[1] or cost.peak_mb for cost in measured)
        rows.append(
            [way, f"{crops / clock:.2f}", f"{crops / cpu:.2f}", f"{peak:.0f}", f"{base / median(measured):.2f}"]
        )
    print_table(("", "crops/s", "crops/CPU s", "peak MB", "CPU: straightforward / it"), rows)


def check_equal(costs: dict[str, list[Cost]]) -> None:
    """Stop where the two ways do not compute the same."""
    losses = {way: costs[way][0].result[0] for way in (STRAIGHTFORWARD, OURS) if way in costs}
    if len(losses) == 2 and abs(losses[OURS] - losses[STRAIGHTFORWARD]) > TOLERANCE:
        raise SystemExit(f"the first losses differ: {losses}")


def step_of(
    way: str, features: tuple[int, ...], volumes: int, random_crops: int, grid: tuple[int, int, int], steps: int,
    device: str,
) -> Callable[[], tuple[float, float]]:  # fmt: skip
    """The work of some steps after a first one; it returns the loss of the first and the peak of MB on the device."""
    if way not in (STRAIGHTFORWARD, RETURNED):
        keep_freed_memory()
    held = memory_mb("VmRSS")
    torch.manual_seed(0)
    loops = way in (STRAIGHTFORWARD, THEIRS_KEPT)
    kind = StraightforwardModel if loops else VoCoModel
    model = kind(plain_architecture(features), random_crops=random_crops, projection_size=1024).to(device)
    batch = random_batch(volumes, random_crops, grid, device)
    if device == "cpu" and way in (OURS, RETURNED, "checkpointed", "chunk"):
        use_cpu_layers(model)
    if way == "channels_last":
        model.encoder.to(memory_format=torch.channels_last_3d)
    if way == "compiled":
        model.encoder.compile()
    if way == "checkpointed":
        recompute(model.encoder)
    autocast = partial(autocast_context, "bf16" if way == "bf16" else "fp32", torch.device(device))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=1e-2, amsgrad=True)

    def step(number: int) -> float:
        update_momentum(model.student, model.teacher, 0.9)
        arguments: dict[str, Any] = {"dropout": ("element", 0.2), "dropout_seed": (0, number)}
        with autocast():
            if loops:
                total = model(*batch, **arguments)
            else:
                valid = torch.ones_like(batch[1][:, 0], dtype=torch.bool)
                places = batch[0].new_zeros(*batch[0].shape[:2], 2, 3)  # no place heads: the other way has none
                hidden = batch[0][:, :0]  # and no decoder
                extra = {**arguments, **WEIGHTS, "chunk": 1 if way == "chunk" else None}
                total = model(*batch, valid, places, hidden, **extra).total
        total.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(total.detach())

    first = step(0)
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()

    def work() -> tuple[float, float]:
        for number in range(1, steps + 1):
            step(number)  # waits for the GPU, as it returns a number
        return first, torch.cuda.max_memory_allocated() / 1e6 if on_gpu else memory_mb("VmHWM") - held

    return work


def random_batch(
    volumes: int, random_crops: int, grid: tuple[int, int, int], device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops of noise, as their content changes nothing, and the overlaps of random places."""
    generator = torch.Generator().manual_seed(1)
    bases = base_corners(grid, CROP)
    slack = torch.tensor(region_size(grid, CROP)) - torch.tensor(CROP)
    places = (torch.rand((volumes, random_crops, 3), generator=generator) * (slack + 1)).int().numpy()
    overlaps = np.array([overlap_fractions(place, bases, CROP) for place in places])
    crops = torch.randn((volumes, random_crops + len(bases), 1, *CROP), generator=generator)
    return crops.to(device), torch.tensor(overlaps, dtype=torch.float32, device=device)


def recompute(encoder: nn.Module) -> None:
    """Let every stage keep its input only, and compute the rest again in the backward pass."""
    for stage in encoder.stages:
        stage.forward = partial(checkpoint, stage.forward, use_reentrant=False)


if __name__ == "__main__":
    main()
