"""Measures fine-tuning: an epoch of `nnUNetTrainerVoCo` against one of nnU-Net's own trainer.

    python benchmarks/finetuning.py [--iterations 20] [--repeats 3] [--patch 64] [--device cuda]

Both train the same network on the same small planned data set, made here in a temporary folder. Measured apart, each
training in a process of its own: the start (network, weights), one epoch, and saving a checkpoint, which the VoCo
trainer does so that an nnU-Net without this package can predict. On a GPU take nnU-Net's 250 iterations and a real
patch:

    python benchmarks/finetuning.py --device cuda --iterations 250 --patch 128

Goal: no slower.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import Cost, describe_machine, in_own_process, measured, median, print_table, take_turns

NAME = "Dataset999_Benchmark"
TRAINERS = ("nnUNetTrainer", "nnUNetTrainerVoCo")
PARTS = ("start", "epoch", "save")
CASES = 5
SAVE_EVERY = 50
"""Epochs between the checkpoints of nnU-Net's trainer."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=10, help="training iterations of the epoch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--patch", type=int, default=32, help="edge of the patch in voxels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="a narrow network, few iterations, one repeat")
    args = parser.parse_args()
    features: tuple[int, ...] = (32, 64, 128, 256, 320)
    if args.quick:
        args.iterations, args.repeats, features = 2, 1, (4, 8, 8)
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        make_dataset(Path(folder), features, args.patch)
        work = (folder, args.iterations, args.device)
        trainings = take_turns(
            {name: partial(in_own_process, training_of, name, *work, threads=args.threads) for name in TRAINERS},
            args.repeats,
        )
    print(f"\n{args.iterations} iterations, patch {args.patch}³, batch 2, {args.repeats} repeats on {args.device}")
    rows = []
    for part in PARTS:
        costs = {name: [training.result[part] for training in trainings[name]] for name in TRAINERS}
        stock, ours = (median(costs[name]) for name in TRAINERS)
        clock = [f"{median(costs[name], 'seconds'):.2f}" for name in TRAINERS]
        rows.append([part, *clock, f"{stock:.2f}", f"{ours:.2f}", f"{ours / stock:.2f}"])
    print_table(("", "stock clock s", "VoCo clock s", "stock CPU s", "VoCo CPU s", "VoCo / stock, CPU"), rows)
    extra, epoch = float(rows[2][4]) - float(rows[2][3]), float(rows[1][3])
    share = extra / (SAVE_EVERY * epoch * 250 / args.iterations)
    print(f"Of {SAVE_EVERY} epochs of 250 iterations, with one checkpoint, the slower saving is {share:.3%}.")


def training_of(trainer_name: str, folder: str, iterations: int, device: str) -> Callable[[], dict[str, Cost]]:
    """The work of one training, which returns the cost of its parts."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[variable] = f"{folder}/{variable}"
    os.environ.update(nnUNet_n_proc_DA="0", nnUNet_compile="f", nnUNet_voco_checkpoint=f"{folder}/voco_encoder.pth")
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from nnunetv2_voco.trainers.nnUNetTrainerVoCo import nnUNetTrainerVoCo

    kind = {"nnUNetTrainer": nnUNetTrainer, "nnUNetTrainerVoCo": nnUNetTrainerVoCo}[trainer_name]
    preprocessed = Path(folder) / "nnUNet_preprocessed" / NAME
    plans, description = (json.loads((preprocessed / f).read_text()) for f in ("nnUNetPlans.json", "dataset.json"))
    torch.manual_seed(0)
    plans["continue_training"] = False  # as nnUNetv2_train does
    trainer = kind(plans, "3d_fullres", 0, description, device=torch.device(device))
    trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = iterations, max(1, iterations // 5)
    trainer.print_to_log_file = lambda *_, **__: None

    def epoch() -> None:
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        trainer.on_train_epoch_end([trainer.train_step(next(trainer.dataloader_train)) for _ in range(iterations)])

    def work() -> dict[str, Cost]:
        start = measured(trainer.on_train_start)
        trainer.train_step(next(trainer.dataloader_train))  # warms up
        cost = measured(epoch)
        save = measured(lambda: trainer.save_checkpoint(f"{trainer.output_folder}/benchmark.pth"))
        return dict(zip(PARTS, (start, cost, save), strict=True))

    return work


def make_dataset(folder: Path, features: tuple[int, ...], patch: int) -> None:
    """Write what nnU-Net's planning and pre-processing leave behind, and a checkpoint of random weights."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    from nnunetv2_voco.checkpoint import Checkpoint, save_checkpoint
    from nnunetv2_voco.encoder import build_network, plain_architecture

    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (folder / variable / NAME).mkdir(parents=True)
    preprocessed = folder / "nnUNet_preprocessed" / NAME
    architecture = plain_architecture(features)
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": CASES,
        "file_ending": ".nii.gz",
    }
    plans: dict[str, Any] = {
        "dataset_name": NAME,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {},
        "configurations": {
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": [patch] * 3,
                "spacing": [1.5, 1.5, 1.5],
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "batch_dice": False,
                "architecture": architecture.to_plans(),
            }
        },
    }
    for name, content in (("dataset", description), ("dataset_fingerprint", {}), ("nnUNetPlans", plans)):
        (preprocessed / f"{name}.json").write_text(json.dumps(content))
    cases = preprocessed / "nnUNetPlans_3d_fullres"
    cases.mkdir()
    rng = np.random.default_rng(0)
    size = (1, *(int(1.5 * patch),) * 3)
    for index in range(CASES):
        seg = np.zeros(size, np.int8)
        seg[:, patch // 3 : patch, patch // 3 : patch, patch // 3 : patch] = 1
        data = (seg + rng.normal(0, 0.3, size)).astype(np.float32)
        properties = {"class_locations": {1: np.argwhere(seg == 1)}}
        nnUNetDatasetBlosc2.save_case(
            data, seg, properties, str(cases / f"case_{index}"), chunks=size, blocks=size, chunks_seg=size,
            blocks_seg=size,
        )  # fmt: skip
    network = build_network(architecture, num_input_channels=1)
    weights = {name: tensor for name, tensor in network.state_dict().items() if name.startswith("encoder.")}
    preprocessing = {"spacing_mm": [1.5] * 3, "orientation": "LPS", "normalization_scheme": "CTNormalization"}
    checkpoint = Checkpoint(
        weights=weights, architecture=architecture, preprocessing=preprocessing, pretraining={"method": "VoCo"},
        provenance={},
    )  # fmt: skip
    save_checkpoint(folder / "voco_encoder.pth", checkpoint)


if __name__ == "__main__":
    main()
