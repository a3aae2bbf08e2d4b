"""`voco_inspect`: what a checkpoint is, where it comes from, and how it would fit a plan; what a network costs."""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from nnunetv2_voco.scales import SCALES

if TYPE_CHECKING:  # imported where needed, so that --help is instant
    from nnunetv2_voco.checkpoint import Checkpoint
    from nnunetv2_voco.foreign import ForeignCheckpoint

ARCHITECTURES = ("plain", "resenc-m", "resenc-l", "resenc-xl")
"""Networks of `voco_pretrain --arch`."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="voco_inspect",
        description="Say what a checkpoint is, what it was trained on and how well and, with -d, what of it would be "
        "transferred into a planned network. Without a checkpoint: what a network costs, named by --arch or planned "
        "(-d).",
    )
    parser.add_argument("checkpoint", nargs="?", help="file, or hf://owner/name[/file]")
    parser.add_argument("-d", dest="dataset", help="data set, name or number")
    parser.add_argument("-c", dest="configuration", default="3d_fullres", help="default: %(default)s")
    parser.add_argument("-p", dest="plans", default="nnUNetPlans", help="default: %(default)s")
    parser.add_argument("--decoder", action="store_true", help="also account for the decoder")
    parser.add_argument(
        "--across_families", action="store_true", help="allow plain weights in a residual network and the reverse"
    )
    cost = parser.add_argument_group("what a network costs, before training it")
    cost.add_argument("--arch", choices=ARCHITECTURES, help="network of voco_pretrain")
    cost.add_argument(
        "--scale", choices=tuple(SCALES), help="size of a plain network, in width and depth; B is nnU-Net's"
    )
    cost.add_argument(
        "--crop-size",
        default="64",
        metavar="Z,Y,X",
        help="of the crop that is measured, in voxels (default: %(default)s)",
    )
    args = parser.parse_args(arguments)
    if args.checkpoint is None or args.arch or args.scale:
        _print_cost(parser, args)
        return

    from nnunetv2_voco.foreign import local_file, open_checkpoint
    from nnunetv2_voco.source import digest

    try:
        checkpoint = open_checkpoint(args.checkpoint)
        print(f"{args.checkpoint}\nSHA-256 {digest(local_file(args.checkpoint))}")
        print("\n".join(describe(checkpoint)))
        if args.dataset is not None:
            print(f"\ninto {args.configuration} of {args.plans} of {args.dataset}:")
            print(_transfer(checkpoint, args))
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"voco_inspect: {error}")


def _print_cost(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.checkpoint is not None or bool(args.arch) == bool(args.dataset):
        parser.error("name a checkpoint, or a network by either --arch or -d")
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*,[1-9]\d*)?", args.crop_size):
        parser.error(f"--crop-size {args.crop_size}: one number of voxels, or three such as 64,64,64, are expected")
    sizes = [int(part) for part in args.crop_size.split(",")]
    z, y, x = sizes * 3 if len(sizes) == 1 else sizes

    from nnunetv2_voco.cost import describe_cost, named_architecture

    try:
        if args.dataset is None:
            architecture = named_architecture(args.arch, args.scale)
        else:
            from nnunetv2_voco.scales import scaled
            from nnunetv2_voco.target import dataset_folder, read_plans, read_target

            folder = dataset_folder(args.dataset)
            architecture = read_target(folder, read_plans(folder, args.plans), args.configuration).architecture
            architecture = scaled(architecture, args.scale) if args.scale else architecture
        print("\n".join(describe_cost(architecture, (z, y, x))))
    except (ValueError, OSError) as error:
        sys.exit(f"voco_inspect: {error}")


def describe(checkpoint: "Checkpoint | ForeignCheckpoint") -> Iterator[str]:
    """Yield lines that say what the checkpoint holds."""
    from nnunetv2_voco.checkpoint import Checkpoint
    from nnunetv2_voco.layout import canonical_weights, family_of
    from nnunetv2_voco.swin_files import DECODER, ENCODER, feature_size, is_swin, swin_trainer

    blocks: dict[str, Mapping[str, Any]]
    if isinstance(checkpoint, Checkpoint):
        origin = "nnunetv2_voco"
        blocks = {
            "pre-processing": checkpoint.preprocessing,
            "pre-training": checkpoint.pretraining,
            "provenance": checkpoint.provenance,
        }
    else:
        origin, blocks = checkpoint.origin, {"details": checkpoint.details}
    yield f"origin        {origin}"
    weights = canonical_weights(checkpoint.weights)
    swin = is_swin(weights)
    encoder = {name: tensor for name, tensor in weights.items() if name.startswith(ENCODER if swin else "encoder.")}
    encoder = {name: tensor for name, tensor in encoder.items() if tensor.is_floating_point()}
    parts = ["encoder"] + ["decoder"] * any(name.startswith(DECODER if swin else "decoder.") for name in weights)
    yield f"holds         {' and '.join(parts)}; {sum(t.numel() for t in encoder.values()):,} parameters in the encoder"
    if swin:
        yield f"encoder       SwinUNETR of feature size {feature_size(weights)}; for {swin_trainer(weights)}"
    else:
        yield f"encoder       {family_of(encoder)}; {_stages(encoder)}"
    if checkpoint.architecture is not None:
        strides = [tuple(stride) for stride in checkpoint.architecture.strides.tolist()]
        yield f"network       {checkpoint.architecture.network_class_name.rsplit('.', 1)[-1]}, strides {strides}"
    for title, block in blocks.items():
        if block:
            yield title
            yield from _lines(block)
    for citation in checkpoint.citations:
        yield f"please cite   {' '.join(citation.split())}"


def _transfer(checkpoint: "Checkpoint | ForeignCheckpoint", args: argparse.Namespace) -> str:
    from nnunetv2_voco.foresee import foresee
    from nnunetv2_voco.swin_files import is_swin
    from nnunetv2_voco.swin_weights import foresee_swin
    from nnunetv2_voco.target import dataset_folder, read_plans, read_target
    from nnunetv2_voco.transfer import MINIMUM_SHARE

    folder = dataset_folder(args.dataset)
    plans = read_plans(folder, args.plans)
    if is_swin(checkpoint.weights):
        return str(foresee_swin(folder, plans, args.configuration, checkpoint))
    target = read_target(folder, plans, args.configuration)
    report = foresee(
        target, plans, checkpoint, decoder=args.decoder, across_families=args.across_families, insist=True
    ).report
    refusal = f"\nthe trainers refuse less than {MINIMUM_SHARE:.0%} unless told to insist" * (
        report.share < MINIMUM_SHARE
    )
    return f"{report}{refusal}"


def _stages(encoder: Mapping[str, Any]) -> str:
    """Say the width of each stage and the kernels, as far as the weights show them."""
    from nnunetv2_voco.layout import stage_of

    widths: dict[str, int] = {}
    kernels: dict[str, None] = {}
    for name, tensor in encoder.items():
        if tensor.ndim == 5 and ".skip." not in name:
            widths[stage_of(name, "encoder.stages", "encoder.stem")] = tensor.shape[0]
            kernels["×".join(map(str, tensor.shape[2:]))] = None
    inputs = next((tensor.shape[1] for tensor in encoder.values() if tensor.ndim == 5), 0)
    features = [width for stage, width in widths.items() if stage != "stem"]
    return f"{inputs} input channels, {len(features)} stages {features}, kernels {', '.join(kernels)}"


def _lines(block: Mapping[str, Any], indent: str = "  ") -> Iterator[str]:
    for key, value in block.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}"
            yield from _lines(value, f"{indent}  ")
        elif value is not None:
            yield f"{indent}{key:<23} {f'{value:.4g}' if isinstance(value, float) else value}"
