"""`voco_pretrain`: fills a `PretrainConfig` from the command line. Heavy imports wait until help has been given."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetv2_voco.arguments import number_list
from nnunetv2_voco.inspection import ARCHITECTURES
from nnunetv2_voco.pretrain.config import help_of
from nnunetv2_voco.pretrain.config_checks import DROPOUTS, PRECISIONS, PSEUDO_LABELLED
from nnunetv2_voco.pretrain.recipes import RECIPES
from nnunetv2_voco.pretrain.setting_presets import PAPER, REGION_PRESETS, TINY
from nnunetv2_voco.scales import SCALES

_DESCRIPTION = """\
Learn an encoder from a folder of unlabelled CT volumes by volume contrast (VoCo), for fine-tuning in nnU-Net.

NIfTI, NRRD, MetaImage and DICOM series are found at any depth. OUT receives voco_encoder.pth, the state for
--continue, volumes.json, log.jsonl, TensorBoard curves and pictures."""

_EXAMPLES = """\
examples:
  voco_pretrain CTS -o runs/first --tiny            try it on a laptop
  voco_pretrain CTS -o runs/liver -d 3              with the plans of nnU-Net's dataset 3: sees what fine-tuning sees
  voco_pretrain CTS -o runs/liver --continue        go on after an interruption
  voco_pretrain --dry-run --volumes 160000 --gpu 8xh100 --steps 2000000    what a large run would take
  voco_pretrain CTS -o runs/omni --labelled 3 4     and with the labels of nnU-Net's datasets 3 and 4
  torchrun --nproc_per_node=4 $(which voco_pretrain) CTS -o runs/large
  voco_pretrain --cache CACHE -o runs/large         on all that voco_preprocess put into CACHE, without its folders"""


_OF_THE_REQUEST = ("out", "cache", "resume", "dry_run", "gpus", "assumed_volumes")
"""Options that are not fields of `PretrainConfig`."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; only options that were given appear in its result."""
    parser = argparse.ArgumentParser(
        prog="voco_pretrain",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "folders", nargs="*", metavar="FOLDER", help="folders of volumes; none to train on all that CACHE holds"
    )
    parser.add_argument("-o", "--out", type=Path, metavar="OUT", help="folder of the run")
    parser.add_argument(
        "--cache", type=Path, help="folder of pre-processed volumes, may be shared (default: OUT/cache)"
    )
    parser.add_argument("--continue", dest="resume", action="store_true", help="go on with the run in OUT")
    parser.add_argument("--dry-run", action="store_true", help="check the volumes, estimate the cost, and stop")
    parser.add_argument(
        "--gpu", dest="gpus", metavar="[N×]NAME", help="with --dry-run: reckon with these GPUs, such as 8xh100"
    )
    parser.add_argument(
        "--volumes", dest="assumed_volumes", type=int, metavar="N",
        help="with --dry-run: reckon with so many volumes; needs neither FOLDER nor -o then",
    )  # fmt: skip
    parser.add_argument("-np", dest="num_processes", type=int, help="processes for pre-processing (default: all cores)")

    presets = parser.add_argument_group("presets (other options override them)")
    presets.add_argument("--tiny", action="store_true", help="a small problem for a laptop's CPU, some minutes")
    presets.add_argument("--paper", action="store_true", help="the published settings where our defaults differ")
    presets.add_argument(
        "--preset", choices=sorted(REGION_PRESETS), help="the paper's spacing and HU window of a region"
    )

    data = parser.add_argument_group("data and network")
    add_target_options(data)
    _add(data, "window", type=number_list(float, 2), metavar="LOW,HIGH")
    _add(data, "arch", choices=ARCHITECTURES)
    _add(data, "scale", choices=tuple(SCALES))
    _add(data, "features", type=number_list(int), metavar="N,N,…")

    labels = parser.add_argument_group("labelled data")
    _add(labels, "labelled", nargs="+", metavar="DATASET")
    _add(labels, "recipe", choices=tuple(RECIPES))
    _add(labels, "fold")
    _add(labels, "labelled_batch_size", type=int)
    for name in ("labelled_weight", "pseudo_weight"):
        _add(labels, name, type=float)
    _add(labels, "pseudo_on", choices=PSEUDO_LABELLED)
    _add(labels, "mirror", action=argparse.BooleanOptionalAction)

    samples = parser.add_argument_group("samples")
    _add(samples, "crop_size", type=number_list(int, 3, cube=True), metavar="Z,Y,X")
    _add(samples, "grid", type=number_list(int, 3), metavar="Z,Y,X")
    for name in ("random_crops", "batch_size", "accumulate"):
        _add(samples, name, type=int)
    _add(samples, "weights", metavar="NAME=W,…|TABLE")
    for name in ("min_body_crop", "min_body_base", "flip_p", "rotate_p"):
        _add(samples, name, type=float)

    training = parser.add_argument_group("training")
    for name in (
        "steps",
        "warmup_steps",
        "projection_size",
        "inter_ramp",
        "val_every",
        "save_every",
        "log_every",
        "seed",
    ):
        _add(training, name, type=int)
    for name in (
        "lr",
        "weight_decay",
        "clip_norm",
        "teacher_momentum",
        "dropout_p",
        "intra_weight",
        "inter_weight",
        "reg_weight",
        "place_weight",
        "decoder_weight",
        "val_fraction",
    ):
        _add(training, name, type=float)
    _add(training, "dropout", choices=DROPOUTS)

    machine = parser.add_argument_group("machine")
    _add(machine, "device")
    _add(machine, "precision", choices=PRECISIONS)
    _add(machine, "num_workers", type=int)
    _add(machine, "compile", action="store_true")
    _add(machine, "channels_last", action="store_true")
    _add(machine, "chunk", type=int)
    _add(machine, "gather", action=argparse.BooleanOptionalAction)
    _add(machine, "keep_memory", action=argparse.BooleanOptionalAction)
    return parser


def add_target_options(group: argparse._ArgumentGroup) -> None:
    """Add the options that decide what cached volumes are brought to; `voco_preprocess` has the same."""
    _add(group, "dataset", "-d", metavar="DATASET")
    _add(group, "configuration", "-c")
    _add(group, "plans", "-p")
    _add(group, "spacing", type=number_list(float, 3, cube=True), metavar="Z,Y,X")
    _add(group, "lossy", type=int, metavar="HU")


def given_settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """Turn parsed arguments into fields of `PretrainConfig`: presets first, explicit options over them."""
    settings: dict[str, Any] = {}
    if arguments.pop("tiny", False):
        settings.update(TINY)
        if "dataset" in arguments or arguments.get("arch", "plain") != "plain":
            for name in ("features", "crop_size"):  # made for the plain network at the tiny spacing
                settings.pop(name)
        if "dataset" in arguments:
            settings.pop("spacing")
    if arguments.pop("paper", False):
        settings.update(PAPER)
    if preset := arguments.pop("preset", None):
        settings.update(REGION_PRESETS[preset])
    settings.update(arguments)
    return settings


def main(argv: Sequence[str] | None = None) -> None:
    """Run `voco_pretrain`; errors that a user can mend are printed without a traceback."""
    arguments = vars(build_parser().parse_args(_with_window_joined(sys.argv[1:] if argv is None else argv)))
    run: dict[str, Any] = {name: arguments.pop(name) for name in _OF_THE_REQUEST if name in arguments}
    run["folders"] = tuple(arguments.pop("folders", ()))
    settle_labelled(arguments)
    run["num_processes"] = arguments.pop("num_processes", None) or os.cpu_count() or 1
    refuse_what_a_dataset_decides(arguments, "voco_pretrain")
    _refuse_what_is_missing(run)

    from nnunetv2_voco.pretrain.collect import CollectError
    from nnunetv2_voco.pretrain.loop import TrainingStopped
    from nnunetv2_voco.pretrain.run import Request, RunError, pretrain

    try:
        verdict = pretrain(Request(settings=given_settings(arguments), **run))
    except (RunError, CollectError, TrainingStopped, OSError, ValueError) as error:
        if os.environ.get("VOCO_TRACEBACK"):
            raise
        sys.exit(f"voco_pretrain: {error}")
    if verdict:
        what = "network" if arguments.get("labelled") or arguments.get("decoder_weight") else "encoder"
        print(f"\n{verdict}\nThe {what} is in {run['out'] / 'voco_encoder.pth'}")


def settle_labelled(arguments: dict[str, Any]) -> None:
    """Take the recipe omni and the first dataset's plans where labelled datasets are given without."""
    if "labelled" in arguments:
        arguments["labelled"] = tuple(arguments["labelled"])
        arguments.setdefault("recipe", "omni")
        arguments.setdefault("dataset", arguments["labelled"][0])


def _with_window_joined(argv: Sequence[str]) -> list[str]:
    """Write `--window -175,250` as `--window=-175,250`; argparse would take the numbers for an option."""
    joined = list(argv)
    for i in reversed(range(len(joined) - 1)):
        if joined[i] == "--window" and joined[i + 1][:2] != "--":
            joined[i : i + 2] = [f"--window={joined[i + 1]}"]
    return joined


def refuse_what_a_dataset_decides(arguments: dict[str, Any], command: str) -> None:
    """Exit if -d is given with what the dataset's plans decide."""
    if "dataset" not in arguments:
        return
    option = "--labelled" if "labelled" in arguments else "-d"
    for name in ("spacing", "window", "arch", "preset"):
        if name in arguments:
            sys.exit(f"{command}: --{name} and {option} exclude each other: the dataset's plans decide it")


def _refuse_what_is_missing(run: dict[str, Any]) -> None:
    dry = run.get("dry_run", False)
    for name, option in (("gpus", "--gpu"), ("assumed_volumes", "--volumes")):
        if name in run and not dry:
            sys.exit(f"voco_pretrain: {option} is for an estimate; give --dry-run with it")
    if run.get("assumed_volumes", 1) < 1:
        sys.exit(f"voco_pretrain: --volumes {run['assumed_volumes']}: must be positive")
    if "out" not in run:
        if run["folders"] or "assumed_volumes" not in run:
            sys.exit("voco_pretrain: -o is missing; it names the folder of the run")
        run["out"] = Path()  # nothing is written


def _add(group: argparse._ArgumentGroup, name: str, *flags: str, **options: Any) -> None:
    """Add the option of a configuration field; its help and default are the field's own."""
    group.add_argument(
        *flags, f"--{name.replace('_', '-')}", dest=name, help=help_of(name).replace("%", "%%"), **options
    )
