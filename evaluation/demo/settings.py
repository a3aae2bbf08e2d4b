"""How large the demo is: everything that makes it fit into ten minutes of two CPU cores."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Sizes of the demo.

    Attributes:
        volumes: Unlabelled phantoms to pre-train on.
        labelled: Labelled cases to fine-tune on.
        validation: Further labelled cases on which nnU-Net validates while it trains.
        test: Held-out cases for the evaluation.
        spacing_mm: Distance of voxels.
        labels: What `voco_phantoms` labels.
        name: What it then calls the data set.
        features: Channels per stage of the network.
        patch_size: In voxels, (z, y, x).
        batch_size: Of the fine-tuning.
        pretraining: Options of `voco_pretrain`.
        trainer: nnU-Net trainer of both trainings; the phantom has left and right organs, so none that mirrors.
        epochs: Of the fine-tuning.
        iterations_per_epoch: Steps in an epoch.
        val_iterations_per_epoch: Steps of the running validation in an epoch.
        initial_lr: Highest learning rate of the fine-tuning.
        seed: Of initial weights and batches.
        dataset: Number of the data set.
        is_meaningful: Whether the trainings are long enough for their figures to be looked at.
    """

    volumes: int = 60
    labelled: int = 5
    validation: int = 3
    test: int = 8
    spacing_mm: float = 6.0
    labels: str = "spine"
    name: str = "SpineLevels"
    features: tuple[int, ...] = (8, 16, 32, 64)
    patch_size: tuple[int, int, int] = (24, 24, 24)
    batch_size: int = 2
    pretraining: tuple[str, ...] = (
        "--steps", "1000", "--lr", "1e-3", "--warmup-steps", "40", "--random-crops", "4", "--inter-weight", "0",
        "--val-every", "250", "--save-every", "250", "--log-every", "25",
    )  # fmt: skip
    trainer: str = "nnUNetTrainerVoCo_prior_nomirroring"
    epochs: int = 12
    iterations_per_epoch: int = 50
    val_iterations_per_epoch: int = 8
    initial_lr: float = 3e-3
    seed: int = 0
    dataset: int = 910
    is_meaningful: bool = True


FULL = DemoSettings()

SMALL = DemoSettings(
    volumes=4,
    labelled=2,
    validation=1,
    test=2,
    spacing_mm=10.0,
    features=(4, 8, 8),
    patch_size=(16, 16, 16),
    pretraining=(
        "--steps", "6", "--warmup-steps", "2", "--inter-weight", "0", "--projection-size", "16", "--crop-size", "8",
        "--val-every", "6", "--save-every", "3", "--log-every", "2", "--num-workers", "0",
    ),
    epochs=2,
    iterations_per_epoch=2,
    val_iterations_per_epoch=1,
    is_meaningful=False,
)  # fmt: skip
"""To see within two minutes that everything works; its figures mean nothing."""
