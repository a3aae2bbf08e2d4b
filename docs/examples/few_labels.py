"""Make a dataset of few labels: the training cases that `voco_benchmark` draws for a number of labels and a seed.

    python docs/examples/few_labels.py 910 --labels 5 --seed 0 --number 920
    voco_pretrain CTS -o runs/omni_0 --labelled 920 -p nnUNetPlans_small

Writes Dataset920_Phantoms5Seed0 into nnUNet_preprocessed: links to the cases and plans of dataset 910, and a
splits_final.json whose fold 0 trains on these cases and holds out those of fold 0 of dataset 910. An encoder that was
pre-trained with it has seen no label that a run of the benchmark with as many labels and the same seed does not see.
"""

import argparse
import json
from pathlib import Path

from nnunetv2.paths import nnUNet_preprocessed

from nnunetv2_voco.evaluation.benchmark.amounts import count_cases, training_subset
from nnunetv2_voco.evaluation.benchmark.datasets import open_dataset


def main() -> None:
    """Read the command line and write the dataset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="name or number")
    parser.add_argument("--labels", required=True, help="a number of cases, or a share such as 5%%")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, required=True, help="of the new dataset")
    parser.add_argument("-c", "--configuration", default="3d_fullres")
    parser.add_argument("-p", "--plans", default="nnUNetPlans")
    args = parser.parse_args()
    source = open_dataset(args.dataset, args.plans)
    training, validation = source.fold_cases(0, args.configuration)
    count = count_cases(args.labels, len(training))
    chosen = training_subset(training, count, dataset=source.name, fold=0, seed=args.seed)
    name = f"Dataset{args.number:03d}_{source.name.split('_', 1)[1]}{count}Seed{args.seed}"
    folder = Path(str(nnUNet_preprocessed)) / name
    folder.mkdir()
    for entry in source.folder.iterdir():
        if entry.name != "splits_final.json" and not entry.name.startswith("nnUNetPlans_VoCoBench"):
            (folder / entry.name).symlink_to(entry.resolve())
    (folder / "splits_final.json").write_text(json.dumps([{"train": chosen, "val": validation}], indent=2))
    print(f"{folder} has {count} training cases and {len(validation)} held out")


if __name__ == "__main__":
    main()
