"""Narrow nnU-Net's plans, so that a CPU trains the network in reasonable time.

    nnUNetv2_plan_and_preprocess -d 904 -c 3d_fullres
    python docs/examples/narrow_plans.py 904 --features 8 16 32 64 --patch 32 40 32 --batch 2

Writes nnUNetPlans_small.json beside nnUNetPlans.json: the first stages of the same network with fewer features, a
smaller patch and batch. Spacing, normalisation, kernels and strides stay, and so does what is pre-processed.
"""

import argparse
from pathlib import Path

from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from nnunetv2_voco.evaluation.demo.small_plans import write_small_plans


def main() -> None:
    """Read the command line and write the plans."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="name or number")
    parser.add_argument("--features", type=int, nargs="+", required=True, help="of each stage")
    parser.add_argument("--patch", type=int, nargs=3, required=True, metavar=("Z", "Y", "X"), help="voxels")
    parser.add_argument("--batch", type=int, default=2)
    args = parser.parse_args()
    dataset = maybe_convert_to_dataset_name(int(args.dataset) if args.dataset.isdigit() else args.dataset)
    folder = Path(str(nnUNet_preprocessed)) / dataset
    write_small_plans(folder, features=args.features, patch_size=args.patch, batch_size=args.batch)
    print(f"{folder / 'nnUNetPlans_small.json'} is written; train with -p nnUNetPlans_small")


if __name__ == "__main__":
    main()
