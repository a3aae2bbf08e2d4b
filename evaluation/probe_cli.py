"""`voco_probe`: says within minutes whether an encoder carries anatomy."""

import argparse
import sys
from pathlib import Path

from nnunetv2_voco.arguments import number_list


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="voco_probe",
        description="Classify single voxels of a pre-processed dataset by the features of a frozen encoder, learned "
        "from a few labelled cases and tested on others, beside random encoders of the same shape. Takes minutes on a "
        "CPU and needs no training of the network.",
    )
    parser.add_argument("checkpoint", help="file, or hf://owner/name[/file]")
    parser.add_argument("-d", dest="dataset", required=True, help="pre-processed data set, name or number")
    parser.add_argument("-c", dest="configuration", default="3d_fullres", help="default: %(default)s")
    parser.add_argument("-p", dest="plans", default="nnUNetPlans", help="default: %(default)s")
    parser.add_argument("-o", dest="output", type=Path, help="JSON file to write everything to")
    parser.add_argument("--labelled", type=int, default=5, help="cases to learn from (default: %(default)s)")
    parser.add_argument("--test", type=int, help="cases to test on (default: half of them, at most 12)")
    parser.add_argument(
        "--seeds",
        type=int,
        default=3,
        help="repetitions with other labelled cases and another random encoder (default: %(default)s)",
    )
    parser.add_argument("--windows", type=int, default=2, help="windows per case (default: %(default)s)")
    parser.add_argument(
        "--window_size",
        type=number_list(int, 3, cube=True),
        metavar="Z,Y,X",
        help="size of a window in voxels (default: the plan's patch, at most 96 along an axis)",
    )
    parser.add_argument("--voxels", type=int, default=200, help="voxels per class and case (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument(
        "--across_families", action="store_true", help="allow plain weights in a residual network and the reverse"
    )
    parser.add_argument("--insist", action="store_true", help="accept however small a share of the encoder is loaded")
    options = vars(parser.parse_args(arguments))
    output: Path | None = options.pop("output")
    if output is not None and not output.absolute().parent.is_dir():
        sys.exit(f"voco_probe: {output}: its folder does not exist")

    from rich.console import Console

    from nnunetv2_voco.atomic import write_json
    from nnunetv2_voco.evaluation.probe import ProbeRequest, probe
    from nnunetv2_voco.evaluation.probe_report import print_tables, to_json, verdict
    from nnunetv2_voco.foreign import local_file
    from nnunetv2_voco.source import digest

    console = Console(width=None if sys.stdout.isatty() else 120)
    request = ProbeRequest(**options)
    try:
        result = probe(request, say=lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True))
        if output is not None:
            write_json(output, to_json(result, request, digest(local_file(request.checkpoint))))
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"voco_probe: {error}")
    print_tables(result, console)
    console.print(f"\n{verdict(result)}", highlight=False, soft_wrap=True)
    if output is not None:
        console.print(f"wrote {output}", highlight=False, markup=False)
