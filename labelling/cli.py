"""`voco_pseudolabel`: an nnU-Net dataset from unlabelled CTs and a trained model."""

import argparse
import sys
from pathlib import Path

_DESCRIPTION = """\
Predict raw CTs with a trained model of nnU-Net and write a complete raw dataset, with the model's confidence in every
case in pseudolabels.csv. Volumes are found and checked as voco_pretrain does (NIfTI, NRRD, MetaImage, DICOM, mixed, at
any depth) and keep their spacing and orientation. Labels are the model's opinion: look at them before trusting them."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="voco_pseudolabel", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="folder of a trained model in nnUNet_results, whose finished folds are averaged, or a checkpoint in it",
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="folders of volumes")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="nnUNet_raw/DatasetXXX_Name")
    parser.add_argument(
        "--least-confidence",
        type=float,
        default=0.0,
        metavar="P",
        help="leave out cases in which the mean probability of the chosen foreground is below (default: %(default)s)",
    )
    parser.add_argument("--continue", dest="resume", action="store_true", help="go on with a dataset begun earlier")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    parser.add_argument(
        "--no-mirroring",
        dest="use_mirroring",
        action="store_false",
        help="up to 8 times faster, somewhat less accurate",
    )
    parser.add_argument(
        "--step", type=float, default=0.5, help="distance of windows as a share of their size (default: %(default)s)"
    )
    options = vars(parser.parse_args(arguments))

    from nnunetv2_voco.labelling.run import LabelRequest, pseudolabel

    try:
        count = pseudolabel(LabelRequest(**{**options, "folders": tuple(options["folders"])}))
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        sys.exit(f"voco_pseudolabel: {error}")
    number = int(options["output"].name[7:10])
    print(f"\n{count} cases in {options['output']}; next")
    print(f"  nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity")
