"""`voco_export`: a file that a stock nnU-Net takes with `-pretrained_weights`."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where needed, so that --help is instant
    from nnunetv2_voco.report import TransferReport


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="voco_export",
        description="Fit pre-trained encoder weights to a planned network and write the whole network, its decoder as "
        "nnU-Net initialises it, for: nnUNetv2_train … -pretrained_weights FILE",
    )
    parser.add_argument("checkpoint", help="file, or hf://owner/name[/file]")
    parser.add_argument("-d", dest="dataset", required=True, help="data set, name or number")
    parser.add_argument("-c", dest="configuration", default="3d_fullres", help="default: %(default)s")
    parser.add_argument("-p", dest="plans", default="nnUNetPlans", help="default: %(default)s")
    parser.add_argument("-o", dest="output", required=True, help="file to write")
    parser.add_argument("--decoder", action="store_true", help="transfer the decoder, too, where it fits")
    parser.add_argument(
        "--across_families", action="store_true", help="allow plain weights in a residual network and the reverse"
    )
    parser.add_argument("--insist", action="store_true", help="accept however small a share of the encoder is loaded")
    args = parser.parse_args(arguments)
    try:
        report = export(
            args.checkpoint,
            args.output,
            dataset=args.dataset,
            configuration=args.configuration,
            plans_name=args.plans,
            decoder=args.decoder,
            across_families=args.across_families,
            insist=args.insist,
        )
    except (ValueError, OSError) as error:
        sys.exit(f"voco_export: {error}")
    print(f"{report}\nwrote {args.output}")


def export(
    checkpoint: str | os.PathLike,
    output: str | os.PathLike,
    *,
    dataset: str,
    configuration: str,
    plans_name: str,
    decoder: bool = False,
    across_families: bool = False,
    insist: bool = False,
) -> "TransferReport":
    """Write the network of a configuration, its encoder pre-trained, to `output`.

    Raises:
        FileNotFoundError: If data set, plans, checkpoint or the folder of `output` are missing.
        ValueError: If the checkpoint cannot be read or does not fit.
    """
    import torch

    from nnunetv2_voco.atomic import write_atomically
    from nnunetv2_voco.foreign import open_checkpoint
    from nnunetv2_voco.foresee import foresee
    from nnunetv2_voco.target import dataset_folder, read_plans, read_target

    if not Path(output).absolute().parent.is_dir():
        raise FileNotFoundError(f"{output}: its folder does not exist")
    folder = dataset_folder(dataset)
    plans = read_plans(folder, plans_name)
    target = read_target(folder, plans, configuration)
    source = open_checkpoint(checkpoint)
    network, report = foresee(target, plans, source, decoder=decoder, across_families=across_families, insist=insist)
    content = {
        "network_weights": network.state_dict(),
        "nnunetv2_voco": {"transfer": report.to_json(), "citations": list(source.citations)},
    }
    write_atomically(output, lambda temporary: torch.save(content, temporary))
    return report
