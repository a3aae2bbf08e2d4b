"""`voco_preprocess`: fill a cache before training, in parts on many machines, join the parts, verify the cache."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetv2_voco.pretrain.cli import add_target_options, given_settings, refuse_what_a_dataset_decides
from nnunetv2_voco.pretrain.setting_presets import REGION_PRESETS

_DESCRIPTION = """\
Pre-process CT volumes into a cache that voco_pretrain trains on, before and apart from training.

Parts may run at the same time on machines that share a file system, be killed, run again and in any order: the cache
ends the same. What it holds is not read again. Give spacing, preset, dataset and --lossy as to voco_pretrain."""

_EXAMPLES = """\
examples:
  voco_preprocess CTS -o CACHE                                          everything on this machine
  voco_preprocess CTS -o CACHE --num-parts 100 --part-id $SLURM_ARRAY_TASK_ID    in an array job with --array=0-99
  voco_preprocess -o CACHE --merge                                      then join the parts and see what is missing
  voco_preprocess CTS -o CACHE --dask tcp://head:8786                   on a Dask cluster
  voco_preprocess -o CACHE --verify                                     read every volume of the cache
  voco_pretrain --cache CACHE -o runs/large                             train; CTS are not needed any more"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; only options that were given appear in its result."""
    parser = argparse.ArgumentParser(
        prog="voco_preprocess",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="folders of volumes")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="CACHE", help="folder of the cache")
    target = parser.add_argument_group("what volumes are brought to, as for voco_pretrain")
    target.add_argument("--preset", choices=sorted(REGION_PRESETS), help="the paper's spacing of a region")
    add_target_options(target)
    work = parser.add_argument_group("work")
    work.add_argument("--num-parts", type=int, metavar="N", help="number of parts the volumes are divided into")
    work.add_argument("--part-id", type=int, metavar="I", help="which part to work on, 0 to N−1")
    work.add_argument(
        "--dask", metavar="SCHEDULER", help="address or file of a Dask scheduler whose workers do the work"
    )
    work.add_argument("-np", dest="num_processes", type=int, help="processes on this machine (default: all cores)")
    work.add_argument(
        "--list", action="store_true", help="list the volumes of FOLDER again and stop; parts use the list"
    )
    after = parser.add_argument_group("afterwards")
    after.add_argument("--merge", action="store_true", help="join the parts' entries into one index per target")
    after.add_argument("--verify", action="store_true", help="check every volume of the cache; fails if one is faulty")
    after.add_argument("--forget", action="store_true", help="with --verify: take faulty volumes out of the cache")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run `voco_preprocess`; errors that a user can mend are printed without a traceback."""
    arguments = vars(build_parser().parse_args(sys.argv[1:] if argv is None else argv))
    _check(arguments)

    from nnunetv2_voco.pretrain.collect import CollectError
    from nnunetv2_voco.pretrain.log import make_console
    from nnunetv2_voco.pretrain.parts import PartRequest, merge, preprocess_part, verify

    console, root = make_console(), arguments.pop("out")
    processes = arguments.pop("num_processes", None) or os.cpu_count() or 1
    try:
        if arguments.pop("verify", False):
            sys.exit(verify(root, console, num_threads=processes, forgetting=arguments.pop("forget", False)))
        if arguments.pop("merge", False):
            sys.exit(not merge(root, console))
        request = PartRequest(
            folders=tuple(arguments.pop("folders")),
            cache=root,
            part=arguments.pop("part_id", 0),
            parts=arguments.pop("num_parts", 1),
            only_list=arguments.pop("list", False),
            dask=arguments.pop("dask", None),
            num_processes=processes,
            settings=given_settings(arguments),
        )
        preprocess_part(request, console)
        if request.parts == 1 and not request.only_list:
            sys.exit(not merge(root, console))
        if not request.only_list:
            console.print(
                f"When all {request.parts} parts are done: voco_preprocess -o {root} --merge", highlight=False
            )
    except (CollectError, OSError, ValueError) as error:
        if os.environ.get("VOCO_TRACEBACK"):
            raise
        sys.exit(f"voco_preprocess: {error}")


def _check(arguments: dict[str, Any]) -> None:
    """Exit on options that do not fit each other."""
    refuse_what_a_dataset_decides(arguments, "voco_preprocess")
    afterwards = [f"--{name}" for name in ("merge", "verify") if name in arguments]
    others = sorted(arguments.keys() - {"out", "merge", "verify", "forget", "num_processes"})
    problem = None
    if len(afterwards) == 2:
        problem = "--merge and --verify are two steps; run them one after the other"
    elif afterwards and [name for name in others if name != "folders" or arguments["folders"]]:
        problem = f"{afterwards[0]} works on all that is in the cache: give it -o CACHE only"
    elif "forget" in arguments and "verify" not in arguments:
        problem = "--forget goes with --verify"
    elif not afterwards and not arguments.get("folders"):
        problem = "no folder of volumes was given; name it before -o"
    elif ("num_parts" in arguments) != ("part_id" in arguments):
        problem = "--num-parts and --part-id go together"
    elif "num_parts" in arguments and not 0 <= arguments["part_id"] < arguments["num_parts"]:
        problem = (
            f"--part-id {arguments['part_id']}: parts are numbered from 0 to {arguments['num_parts'] - 1} "
            f"with --num-parts {arguments['num_parts']}"
        )
    if problem:
        sys.exit(f"voco_preprocess: {problem}")
