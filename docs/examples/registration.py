"""Deformable registration by the features of a pre-trained encoder, beside intensities and a random encoder.

    python docs/examples/registration.py CHECKPOINT RAW_DATASET

Pairs of cases of a labelled nnU-Net dataset of small images (such as the hippocampus dataset of the Medical
Segmentation Decathlon) are registered by gradient descent on a displacement field with a diffusion regulariser. What is
compared differs: intensities, features of a random encoder, features of the checkpoint. The labels are only used to
measure: mean Dice of the warped labels. For each method the weight of the regulariser is chosen on pairs of their own.

Shape suffixes: C = channels, 3 = (z, y, x).
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor
from torch.nn import functional as F

from nnunetv2_voco import load_encoder_model
from nnunetv2_voco.encoder_model import EncoderModel

WEIGHTS = (0.03, 0.1, 0.3)
"""Of the regulariser, to choose from."""

TUNING_PAIRS, TEST_PAIRS = 3, 16
STEPS = 40
CONTROL_VOX = 4
"""Distance of the control points of the displacement field."""

RATE_VOX = 0.3
"""Learning rate: about how far a control point moves in a step."""

STAGES = (1,)
"""Feature maps that are compared: those at half the resolution."""

Case = tuple[Tensor, Tensor]
"""Image (1, 1, z, y, x), not normalised, and labels of the same shape."""


def read_case(image_file: Path, label_file: Path, size_vox: Sequence[int]) -> Case:
    """Read an image and its labels in LPS, both padded or cropped around the middle."""
    arrays = [sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(f)), "LPS")) for f in (image_file, label_file)]
    image, labels = (_fit(torch.from_numpy(array.astype(np.float32)), size_vox) for array in arrays)
    return image[None, None], labels[None, None]


def _fit(volume: Tensor, size_vox: Sequence[int]) -> Tensor:
    for axis, size in enumerate(size_vox):
        missing = size - volume.shape[axis]
        if missing > 0:
            padding = [0, 0] * (2 - axis) + [missing // 2, missing - missing // 2] + [0, 0] * axis
            volume = F.pad(volume, padding)
        volume = volume.narrow(axis, -min(missing, 0) // 2, size)
    return volume


def encoder_maps(model: EncoderModel) -> Callable[[Tensor], list[Tensor]]:
    """Return what is compared when an encoder is used: some of its maps, each channel to unit variance."""

    @torch.no_grad()
    def maps(image: Tensor) -> list[Tensor]:
        stages = model(model.normalise(image[0, 0].numpy())[None, None])
        return [_standardised(stages[stage]) for stage in STAGES]

    return maps


def intensity_maps(image: Tensor) -> list[Tensor]:
    """Return what is compared without an encoder: the standardised image."""
    return [_standardised(image)]


def _standardised(maps: Tensor) -> Tensor:
    spread = maps.std(dim=(2, 3, 4), keepdim=True).clamp_min(1e-6)
    return (maps - maps.mean(dim=(2, 3, 4), keepdim=True)) / spread


def register(fixed: Sequence[Tensor], moving: Sequence[Tensor], size_vox: Sequence[int], weight: float) -> Tensor:
    """Return the displacement in voxels (1, 3, z, y, x), on a grid of control points, that brings `moving` to `fixed`.

    Minimises the mean squared difference of the maps, plus `weight` times the mean squared gradient.
    """
    shift = torch.zeros(1, 3, *(size // CONTROL_VOX for size in size_vox), requires_grad=True)
    optimizer = torch.optim.Adam([shift], lr=RATE_VOX)
    for _ in range(STEPS):
        optimizer.zero_grad()
        terms = [F.mse_loss(warp(m, shift), f) for f, m in zip(fixed, moving, strict=True)]
        roughness = sum((shift.diff(dim=axis) / CONTROL_VOX).square().mean() for axis in (2, 3, 4))
        (torch.stack(terms).mean() + weight * roughness).backward()
        optimizer.step()
    return shift.detach()


def warp(maps: Tensor, shift: Tensor, mode: str = "bilinear") -> Tensor:
    """Sample maps (1, C, z, y, x) of any resolution at displaced places."""
    shape = maps.shape[2:]
    size_vox = CONTROL_VOX * torch.tensor(shift.shape[2:]).view(1, 3, 1, 1, 1)
    relative = 2 * F.interpolate(shift, shape, mode="trilinear", align_corners=False) / size_vox
    identity = F.affine_grid(torch.eye(3, 4)[None], [1, 1, *shape], align_corners=False)
    grid = identity + relative.flip(1).permute(0, 2, 3, 4, 1)  # grid_sample wants (x, y, z)
    return F.grid_sample(maps, grid, mode=mode, padding_mode="border", align_corners=False)


def mean_dice(labels: Tensor, others: Tensor) -> float:
    """Mean Dice over the labels that are there."""
    values = [v for v in labels.unique().tolist() if v > 0]
    overlaps = [2 * ((labels == v) & (others == v)).sum() / ((labels == v).sum() + (others == v).sum()) for v in values]
    return float(torch.stack(overlaps).mean())


def score(maps: Callable[[Tensor], list[Tensor]], pairs: Sequence[tuple[Case, Case]], weight: float) -> np.ndarray:
    """Return the Dice of each pair after registration."""
    dice = []
    for (fixed, fixed_labels), (moving, moving_labels) in pairs:
        shift = register(maps(fixed), maps(moving), fixed.shape[2:], weight)
        dice.append(mean_dice(fixed_labels, warp(moving_labels, shift, mode="nearest")))
    return np.array(dice)


def interval(values: np.ndarray) -> str:
    """Mean with its 95 % interval, by drawing pairs anew."""
    draws = np.random.default_rng(0).choice(values, (5000, len(values))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{values.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("dataset", type=Path, help="raw nnU-Net dataset, with imagesTr and labelsTr")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs")
    args = parser.parse_args()
    model = load_encoder_model(args.checkpoint)

    label_files = sorted((args.dataset / "labelsTr").glob("*.nii.gz"))
    chosen = np.random.default_rng(args.seed).choice(len(label_files), 2 * (TUNING_PAIRS + TEST_PAIRS), replace=False)
    image_files = [args.dataset / "imagesTr" / f.name.replace(".nii.gz", "_0000.nii.gz") for f in label_files]
    stride = np.lcm(model.contract.stride, CONTROL_VOX)
    sizes = [sitk.ReadImage(str(label_files[i])).GetSize()[::-1] for i in chosen]
    size = (np.ceil(np.median(sizes, axis=0) / stride) * stride).astype(int).tolist()
    cases = [read_case(image_files[i], label_files[i], size) for i in chosen]
    pairs = list(zip(cases[::2], cases[1::2], strict=True))
    tuning, test = pairs[:TUNING_PAIRS], pairs[TUNING_PAIRS:]

    before = np.array([mean_dice(fixed[1], moving[1]) for fixed, moving in test])
    print(f"{len(test)} pairs of {args.dataset.name}, {' × '.join(map(str, size))} voxels")
    print(f"{'not registered':18} Dice {before.mean():.3f}")
    methods: dict[str, Callable[[Tensor], list[Tensor]]] = {
        "intensities": intensity_maps,
        "random encoder": encoder_maps(model.untrained(0)),
        "pre-trained": encoder_maps(model),
    }
    results = {}
    for name, maps in methods.items():
        weight = max(WEIGHTS, key=lambda weight: score(maps, tuning, weight).mean())
        results[name] = score(maps, test, weight)
        print(
            f"{name:18} Dice {results[name].mean():.3f}, gain {interval(results[name] - before)}, weight {weight}",
            flush=True,
        )
    for other in ("intensities", "random encoder"):
        print(f"pre-trained minus {other}: {interval(results['pre-trained'] - results[other])}")


if __name__ == "__main__":
    main()
