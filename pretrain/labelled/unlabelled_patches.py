"""Patches of unlabelled volumes for pseudo-labels, as large and as augmented as the labelled ones.

Each comes twice: as the labeller sees it, moved, turned and scaled by nnU-Net's augmentation, and as the network is to
learn it, with nnU-Net's noise, blur, contrast and so on besides. Were both the same image, the network would agree with
its labels from the start and learn next to nothing.

As in `dataset`, patch number i is the same in every process, with any number of workers, and after a resume.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch import Tensor
from torch.utils.data import Dataset

from nnunetv2_voco.pretrain.cache import Record, VolumeCache
from nnunetv2_voco.pretrain.crops import draw_region
from nnunetv2_voco.pretrain.intensity import Intensity
from nnunetv2_voco.pretrain.labelled.patches import choose_augmentation, training_transforms
from nnunetv2_voco.pretrain.seeded import seeded
from nnunetv2_voco.pretrain.volume_order import VolumeOrder

SEED_WORD = 4
"""Last of the three words that seed a patch; `labelled.patches` has 2 and 3."""

GEOMETRIC = (Convert3DTo2DTransform, SpatialTransform, Convert2DTo3DTransform, MirrorTransform)
"""Those of nnU-Net's transforms that move voxels; those of intensities are wrapped in `RandomTransform`."""


class UnlabelledPatch(NamedTuple):
    """One patch; a batch holds the same fields with a leading axis of patches.

    Attributes:
        image: float32 (1, z, y, x), for the labeller.
        augmented: float32 (1, z, y, x), the same voxels with other intensities, for the network.
    """

    image: Tensor
    augmented: Tensor


class UnlabelledPatches(Dataset):
    """Patches by number, without end, of volumes in the order of `VolumeOrder`.

    Args:
        cache: Where the volumes lie.
        records: The volumes to draw from.
        intensity: Normalisation.
        patch_size: Edge lengths of a patch in voxels.
        mirror: Whether patches are mirrored.
        seed: The run's seed.
        weights: How often each volume is drawn, relative to the others; alike, when None.
    """

    def __init__(
        self,
        cache: VolumeCache,
        records: Sequence[Record],
        *,
        intensity: Intensity,
        patch_size: tuple[int, int, int],
        mirror: bool,
        seed: int,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.cache, self.records, self.intensity = cache, records, intensity
        self.patch_size, self.seed = patch_size, seed
        self.order = VolumeOrder(len(records), seed, weights)
        chosen = choose_augmentation(patch_size, mirror=mirror)
        self.read_size = chosen.read_size
        every = training_transforms(patch_size, None, chosen, use_mask_for_norm=False).transforms
        self.geometric = ComposeTransforms([step for step in every if isinstance(step, GEOMETRIC)])
        self.intensities: BasicTransform = ComposeTransforms(
            [step for step in every if isinstance(step, RandomTransform)]
        )

    def __getitem__(self, number: int) -> UnlabelledPatch:
        volume = self.cache.open(self.records[self.order[number]])
        state = np.random.SeedSequence((self.seed, number, SEED_WORD))
        corner = draw_region(
            np.random.default_rng(state), volume_shape=volume.record.shape, region_shape=self.patch_size,
            body=volume.body,
        )  # fmt: skip
        margin = np.subtract(self.read_size, self.patch_size) // 2
        voxels = torch.from_numpy(self.intensity(volume.read(corner - margin, self.read_size)))[None]
        with seeded(state):  # the transforms draw from the global generators
            image = self.geometric(image=voxels)["image"].contiguous()
            augmented = self.intensities(image=image.clone())["image"]
        return UnlabelledPatch(image, augmented.contiguous())
