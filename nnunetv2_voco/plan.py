"""`voco_plan`: plans that name the weights to start from, beside the plans they are taken from."""

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where needed, so that --help is instant
    from nnunetv2_voco.source import WeightSource


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="voco_plan",
        description="Write nnUNetPlans_VoCo_NAME.json: the same plans with a pre-trained checkpoint and its digest in "
        "them. Nothing is pre-processed again; train with -p nnUNetPlans_VoCo_NAME.",
    )
    parser.add_argument("-d", dest="dataset", required=True, help="data set, name or number")
    parser.add_argument("-pc", dest="checkpoint", required=True, help="file, or hf://owner/name[/file]")
    parser.add_argument("-p", dest="plans", default="nnUNetPlans", help="plans to start from (default: %(default)s)")
    parser.add_argument("-n", dest="name", help="NAME (default: the file's name and the start of its digest)")
    parser.add_argument("--scale", help="also give the plain networks another size: S, B (nnU-Net's own), L or H")
    parser.add_argument("--decoder", action="store_true", help="transfer the decoder, too, where it fits")
    parser.add_argument(
        "--across_families", action="store_true", help="allow plain weights in a residual network and the reverse"
    )
    parser.add_argument("--insist", action="store_true", help="accept however small a share of the encoder is loaded")
    args = parser.parse_args(arguments)

    from nnunetv2_voco.source import WeightSource, digest, local_file

    try:
        file = local_file(args.checkpoint)
        is_file = "://" not in args.checkpoint
        sha256 = digest(file)
        source = WeightSource(
            checkpoint=str(file.resolve()) if is_file else args.checkpoint,
            sha256=sha256,
            decoder=args.decoder,
            across_families=args.across_families,
            insist=args.insist,
        )
        name = args.name or f"{re.sub('[^A-Za-z0-9]+', '_', file.stem)}_{sha256[:8]}"
        write_plans(args.dataset, args.plans, name, source, scale=args.scale)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"voco_plan: {error}")


def write_plans(dataset: str, plans_name: str, name: str, source: "WeightSource", *, scale: str | None = None) -> Path:
    """Write the plans with `source` in them; print what would be transferred into each 3D configuration and what next.

    Args:
        dataset: Name or number.
        plans_name: The plans to start from.
        name: Becomes part of the new plans' name.
        source: The weights.
        scale: Size to give the plain networks, a key of `nnunetv2_voco.scales.SCALES`; patch and batch size stay.

    Returns:
        The file written.

    Raises:
        FileNotFoundError: If data set, plans or checkpoint are missing.
        FileExistsError: If plans of that name exist with other weights, switches or networks in them.
        ValueError: If name or scale are none, the checkpoint cannot be read, or fits no 3D configuration.
    """
    from nnunetv2_voco.atomic import write_json
    from nnunetv2_voco.source import PLANS_KEY
    from nnunetv2_voco.target import dataset_folder, read_plans

    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]|_(?!_))*", name):
        raise ValueError(f"name {name!r}: take letters, digits, - and single _; nnU-Net splits folder names at __")
    folder = dataset_folder(dataset)
    plans = read_plans(folder, plans_name)
    if scale is not None:
        _scale_networks(plans, scale)
    trainer = _check_transfer(folder, plans, source)
    plans["plans_name"] = f"{plans_name}_VoCo_{name}"
    plans[PLANS_KEY] = source.to_plans()
    file = folder / f"{plans['plans_name']}.json"
    if file.exists() and read_plans(folder, file.stem) != plans:
        raise FileExistsError(f"{file}: exists with other weights in it, or networks; take another name with -n")
    write_json(file, plans)
    print(f"\nwrote {file}; train with\n  nnUNetv2_train {dataset} 3d_fullres 0 -tr {trainer} -p {file.stem}")
    return file


def _scale_networks(plans: dict, scale: str) -> None:
    """Give the 3D networks of `plans` another size, in place."""
    from nnunetv2_voco.encoder import Architecture
    from nnunetv2_voco.scales import scaled

    for configuration in plans["configurations"].values():
        if "architecture" in configuration and len(configuration.get("patch_size", ())) == 3:
            architecture = Architecture.from_plans(configuration["architecture"])
            configuration["architecture"] = scaled(architecture, scale).to_plans()


def _check_transfer(folder: Path, plans: dict, source: "WeightSource") -> str:
    """Print the account of the transfer into each 3D configuration; raise if it is refused in all.

    Returns:
        The trainer for these weights.
    """
    from nnunetv2_voco.foresee import foresee
    from nnunetv2_voco.swin_files import is_swin, swin_trainer
    from nnunetv2_voco.swin_weights import foresee_swin
    from nnunetv2_voco.target import read_target
    from nnunetv2_voco.transfer import TransferError

    checkpoint = source.open()
    from_swin = is_swin(checkpoint.weights)
    refusals = []
    targets = [read_target(folder, plans, configuration) for configuration in plans["configurations"]]
    targets = [target for target in targets if target.is_3d]
    for target in targets:
        print(f"\n{target.configuration}")
        try:
            if from_swin:
                print(foresee_swin(folder, plans, target.configuration, checkpoint))
                continue
            report = foresee(
                target,
                plans,
                checkpoint,
                decoder=source.decoder,
                across_families=source.across_families,
                insist=source.insist,
            ).report
            print(report)
        except TransferError as error:
            refusals.append(f"{target.configuration}: {str(error).splitlines()[0]}")  # the table is printed once
            print(f"refused: {error}")
    if not (source.decoder or from_swin) and any(name.startswith("decoder.") for name in checkpoint.weights):
        print("\nnote: the checkpoint holds a decoder, too; --decoder transfers it where it fits")
    if len(refusals) == len(targets):
        raise ValueError("\n".join(["the weights fit no 3D configuration of these plans", *refusals]))
    return swin_trainer(checkpoint.weights) if from_swin else "nnUNetTrainerVoCo"
