"""Link the raw images of a fold's training cases into a folder, to pre-train on without those held out.

    python docs/examples/training_images.py 904 --out runs/hippocampus_images
    voco_pretrain runs/hippocampus_images -o runs/hippocampus -d 904

A benchmark's labelled cases are drawn from them, and its validation cases are none of them.
"""

import argparse
from pathlib import Path

from nnunetv2.paths import nnUNet_raw
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunetv2_voco.evaluation.benchmark.datasets import open_dataset


def main() -> None:
    """Read the command line and link the images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="name or number")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("-c", "--configuration", default="3d_fullres")
    parser.add_argument("-p", "--plans", default="nnUNetPlans")
    args = parser.parse_args()
    source = open_dataset(args.dataset, args.plans)
    training, _ = source.fold_cases(args.fold, args.configuration)
    args.out.mkdir(parents=True)
    cases = get_filenames_of_train_images_and_targets(str(Path(str(nnUNet_raw)) / source.name))
    for image in (Path(name) for case in training for name in cases[case]["images"]):
        (args.out / image.name).symlink_to(image.resolve())
    print(f"{args.out} links the images of {len(training)} training cases of {source.name}, fold {args.fold}")


if __name__ == "__main__":
    main()
