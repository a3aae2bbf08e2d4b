"""Labelled patches for training, by nnU-Net's own sampling and augmentation: a function of seed and patch number.

As in `dataset`, nothing is drawn from a state that runs along: patch number i is the same in every process, with any
number of workers, and after a resume.
"""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from nnunetv2_voco.pretrain.labelled.sets import IGNORE_LABEL, LabelledData
from nnunetv2_voco.pretrain.seeded import seeded
from nnunetv2_voco.pretrain.volume_order import VolumeOrder

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

FOREGROUND_SHARE = 0.33
"""Share of patches around a foreground voxel: `oversample_foreground_percent` in nnUNetTrainer's constructor."""

SEED_WORD = {"training": 2, "validation": 3}
"""Last of the three words that seed a patch of each part. Samples of volumes have two, their order's last is 1."""

UNDECLARED = -2
"""Stands for the class of label values that are not in the dataset's dataset.json."""


class LabelledPatch(NamedTuple):
    """One patch; a batch holds the same fields with a leading axis of patches.

    Attributes:
        image: float32 (1, z, y, x).
        targets: int16 (1, z', y', x') for each scale of deep supervision, highest resolution first: classes of the
            network, 0 for the background, `IGNORE_LABEL` where the voxel is to be ignored.
        set_index: int64 (), index of the patch's dataset in `LabelledData.sets`.
    """

    image: Tensor
    targets: tuple[Tensor, ...]
    set_index: Tensor


def join_labelled(patches: Sequence[LabelledPatch]) -> LabelledPatch:
    """Make a batch of patches as torch does by default, whose `targets` would be a list."""
    image, targets, set_index = default_collate(list(patches))
    return LabelledPatch(image, tuple(targets), set_index)


def join_labelled_batches(batches: Sequence[LabelledPatch]) -> LabelledPatch:
    """Make one batch of several."""
    images, targets, set_indices = zip(*batches, strict=True)
    joined = tuple(torch.cat(scale) for scale in zip(*targets, strict=True))
    return LabelledPatch(torch.cat(images), joined, torch.cat(set_indices))


class LabelledDataset(Dataset):
    """Patches by number, without end: each case of all datasets comes once in every pass.

    Nothing stays open between two patches, so that the dataset may go to other processes at any time.

    Args:
        data: The datasets.
        part: Whose cases are drawn; patches of "training" are augmented.
        patch_size: Edge lengths of a patch in voxels.
        deep_supervision_scales: Sizes of the targets relative to the patch's, three each.
        mirror: Whether training patches are mirrored.
        seed: The run's seed.

    Raises:
        ValueError: If no dataset has cases of this part; of a patch, if it holds labels that are not in the
            dataset's dataset.json.
    """

    def __init__(
        self,
        data: LabelledData,
        *,
        part: Literal["training", "validation"],
        patch_size: tuple[int, int, int],
        deep_supervision_scales: Sequence[Sequence[float]],
        mirror: bool,
        seed: int,
    ) -> None:
        self.data, self.part, self.patch_size, self.seed = data, part, patch_size, seed
        self.cases = [(index, case) for index, one in enumerate(data.sets) for case in getattr(one, part)]
        if not self.cases:
            names = ", ".join(one.name for one in data.sets)
            raise ValueError(f"{names}: no {part} cases; take another fold or correct splits_final.json")
        self.order = VolumeOrder(len(self.cases), seed)
        scales = [list(scale) for scale in deep_supervision_scales]
        if part == "training":
            chosen = choose_augmentation(patch_size, mirror=mirror)
            self.read_size = chosen.read_size
            self.transforms = [
                training_transforms(patch_size, scales, chosen, use_mask_for_norm=one.use_mask_for_norm)
                for one in data.sets
            ]
        else:
            self.read_size = patch_size
            self.transforms = [trainer_class().get_validation_transforms(scales) for _ in data.sets]
        self.readers = [infer_dataset_class(one.folder) for one in data.sets]
        self.labels = [label_manager(one.united) for one in data.sets]
        self.classes = [class_table(one.united) for one in data.sets]

    def __getitem__(self, number: int) -> LabelledPatch:
        index, case = self.cases[self.order[number]]
        loader = nnUNetDataLoader(
            self.readers[index](self.data.sets[index].folder, [case]),
            1,
            self.read_size,
            self.patch_size,
            self.labels[index],
            oversample_foreground_percent=FOREGROUND_SHARE,
            probabilistic_oversampling=True,
            transforms=self.transforms[index],
        )
        with seeded(np.random.SeedSequence((self.seed, number, SEED_WORD[self.part]))):
            batch = loader.generate_train_batch()
        targets = tuple(self.classes[index][target[0].long()] for target in batch["target"])
        if (targets[0] == UNDECLARED).any():
            values = sorted({int(v) for v in batch["target"][0].unique()} - set(self.data.sets[index].united))
            raise ValueError(
                f"{self.data.sets[index].folder}/{case}: holds labels {values}, which are not in dataset.json of "
                f"{self.data.sets[index].name}; correct it or the case, and run nnUNetv2_preprocess again"
            )
        return LabelledPatch(batch["data"][0], targets, torch.tensor(index))


def class_table(united: Mapping[int, int]) -> Tensor:
    """Class of the network for each label value, int16; `UNDECLARED` for all values that are not in `united`."""
    table = torch.full((2**15,), UNDECLARED, dtype=torch.int16)
    for value, label in united.items():
        table[value] = label
    return table


def label_manager(united: Mapping[int, int]) -> LabelManager:
    """nnU-Net's account of a dataset's own labels, which tells its loader where foreground and annotations are."""
    names = {0: "background"} | {value: "ignore" for value, label in united.items() if label == IGNORE_LABEL}
    return LabelManager({names.get(value, f"label {value}"): value for value in united}, regions_class_order=None)


def trainer_class() -> "type[nnUNetTrainer]":
    """nnU-Net's trainer, imported when it is needed: that takes seconds, which runs without labels need not wait."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    return nnUNetTrainer


class Augmentation(NamedTuple):
    """What nnU-Net's trainer chooses for patches of a size.

    Attributes:
        read_size: Edge lengths in voxels of what is read, larger than the patch, for it may be turned.
        angles: Range of rotations in radians.
        slicewise: Whether slices are transformed one by one.
        mirror_axes: Axes to mirror along.
    """

    read_size: tuple[int, int, int]
    angles: tuple[float, float]
    slicewise: bool
    mirror_axes: tuple[int, ...]


def choose_augmentation(patch_size: tuple[int, int, int], *, mirror: bool) -> Augmentation:
    """Ask nnU-Net's trainer what it chooses for patches of a size."""
    trainer = SimpleNamespace(  # all that the method looks at
        configuration_manager=SimpleNamespace(patch_size=list(patch_size)), print_to_log_file=lambda *_: None
    )
    choose: Any = trainer_class().configure_rotation_dummyDA_mirroring_and_inital_patch_size
    angles, slicewise, read_size, axes = choose(trainer)
    z, y, x = (int(n) for n in read_size)
    return Augmentation((z, y, x), angles, slicewise, axes if mirror else ())


def training_transforms(
    patch_size: tuple[int, int, int], scales: list[list[float]] | None, chosen: Augmentation, *, use_mask_for_norm: bool
) -> BasicTransform:
    """nnU-Net's augmentation, made a function of the random generators alone.

    Its blur tries two ways to convolve and keeps the faster; their results differ in rounding, so that one is fixed.
    """
    transforms: Any = trainer_class().get_training_transforms(
        patch_size,
        chosen.angles,
        scales,
        chosen.mirror_axes,
        chosen.slicewise,
        use_mask_for_norm=[use_mask_for_norm],
    )
    for step in transforms.transforms:
        inner = getattr(step, "transform", step)
        if isinstance(inner, GaussianBlurTransform):
            inner.benchmark = False
    return transforms
