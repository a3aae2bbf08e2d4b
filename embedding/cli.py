"""`voco_embed`: embeddings of whole volumes, or of places in them, as a table."""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from nnunetv2_voco.arguments import number_list

_DESCRIPTION = """\
Embed the volumes of a folder by a pre-trained encoder: one row per volume (the mean over a sliding window), or with
--points one row per place. Volumes are found and prepared as voco_pretrain does, by the checkpoint's own spacing,
orientation and normalisation.

A table of places is CSV with a column volume (name as printed, or its end) and either x_mm, y_mm, z_mm (patient's frame
as in DICOM and ITK: to the left, to the back, to the head) or i, j, k (voxels of the file, from 0). All its columns,
labels for example, are in the output as well."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="voco_embed", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="file, or hf://owner/name[/file]")
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="folders of volumes")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="table to write, .parquet or .csv"
    )
    parser.add_argument("--points", type=Path, metavar="CSV", help="table of places to embed instead of whole volumes")
    parser.add_argument(
        "--crop-size",
        type=number_list(int, 3, cube=True),
        metavar="Z,Y,X",
        help="the encoder's window in voxels (default: the crops of pre-training)",
    )
    parser.add_argument(
        "--step", type=float, default=1.0, help="distance of windows as a share of their size (default: %(default)s)"
    )
    parser.add_argument("--cache", type=Path, help="keep pre-processed volumes, or use those of a run (OUT/cache)")
    parser.add_argument("-np", dest="num_processes", type=int, default=os.cpu_count() or 1, help="default: all cores")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument(
        "--untrained", dest="untrained_seed", type=int, metavar="SEED", help="random weights instead, to compare with"
    )
    foreign = parser.add_argument_group("for checkpoints that do not say what they expect")
    foreign.add_argument(
        "--spacing", type=number_list(float, 3, cube=True), metavar="Z,Y,X", help="distance of voxels in mm"
    )
    foreign.add_argument(
        "--window",
        type=number_list(float, 2),
        metavar="LOW,HIGH",
        help="HU window that becomes 0…1; write --window=-175,250",
    )
    options = vars(parser.parse_args(arguments))

    from nnunetv2_voco.embedding.run import EmbedRequest, embed

    request = EmbedRequest(**{**options, "folders": tuple(options["folders"])})
    try:
        rows, columns = embed(request, say=partial(print, flush=True))
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"voco_embed: {error}")
    print(f"wrote {rows} rows of {columns} features to {request.output}")
