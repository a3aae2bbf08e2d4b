"""A torso phantom: CT-like volumes with organs in consistent places, to try everything without data.

Every individual is the body of `phantom_anatomy`, scaled, smoothly deformed and seen through a scanner.

Shape suffixes: Z, Y, X = the voxel grid; K = the knots of a spline; 3 = (z, y, x).
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2_voco.pretrain.phantom_anatomy import (
    HALF_DEPTH_MM,
    HALF_WIDTH_MM,
    LABELS,
    LOOK_ALIKES,
    ORGANS,
    Canvas,
    bowel_loops,
    paint_skeleton,
    paint_trunk,
    vary_organs,
    vertebra_number,
)

__all__ = ["FIELDS_MM", "LABELS", "LOOK_ALIKES", "Phantom", "main", "make_phantom", "smooth_noise", "table_mask"]

FIELDS_MM = {"torso": (0.0, 330.0), "chest": (160.0, 330.0), "abdomen": (0.0, 215.0)}
"""Lower and upper end of each field of view along z."""

MIN_HU, MAX_HU = -1024, 3071

LABELLINGS = {"organs": "Phantoms", "look-alikes": "LookAlikes", "spine": "SpineLevels"}
"""What a dataset of phantoms may label, and how it is then called."""


@dataclass(frozen=True)
class Phantom:
    """One individual as the scanner sees it: arrays in LPS order, voxel (0, 0, 0) lowest, foremost and rightmost."""

    image_zyx: np.ndarray
    """int16, Hounsfield units in [-1024, 3071]."""

    labels_zyx: np.ndarray
    """uint8, the values of `LABELS`; in a partial field of view some are absent."""

    vertebrae_zyx: np.ndarray
    """uint8, number of the vertebra from below, starting with 1, in the voxels of the label spine; else 0."""

    spacing_mm: tuple[float, float, float]
    """Distance of voxel centres along (z, y, x)."""


def make_phantom(
    rng: np.random.Generator, *, spacing_mm: float | tuple[float, float, float] = 3.0, field: str = "torso"
) -> Phantom:
    """Return a new individual, a pure function of the state of `rng`, the spacing and the field of view.

    Bodies vary in size by 12 % and in fat, organs in place by 8 mm, in size by 15 % and in intensity by 15 HU.

    Args:
        rng: Source of everything that is random.
        spacing_mm: One number, or (z, y, x).
        field: A key of `FIELDS_MM`.

    Raises:
        ValueError: The spacing or the field of view is impossible.
    """
    spacing_3 = np.broadcast_to(np.asarray(spacing_mm, float), 3)
    if not ((spacing_3 > 0) & (spacing_3 <= 20)).all():
        raise ValueError(f"spacing {spacing_mm} mm is not within (0, 20]; 3.0 is the usual one")
    if field not in FIELDS_MM:
        raise ValueError(f"field of view '{field}' is not one of {', '.join(FIELDS_MM)}")
    scale_3 = rng.uniform(0.90, 1.10) * rng.uniform(0.98, 1.02, 3)
    girth = rng.uniform(0.97, 1.10)  # how far the fat reaches; 1 is the average body's skin
    organs = vary_organs(bowel_loops(rng) + ORGANS, rng)

    ends_mm = np.add(FIELDS_MM[field], rng.uniform(-8, 8)) if field != "torso" else np.array(FIELDS_MM[field])
    half_depth, half_width = girth * HALF_DEPTH_MM, girth * HALF_WIDTH_MM
    low_3 = np.array([ends_mm[0], -half_depth - rng.uniform(12, 30), -half_width - rng.uniform(8, 25)])
    high_3 = np.array([ends_mm[1], half_depth + rng.uniform(45, 60), half_width + rng.uniform(8, 25)])
    shape = tuple(np.maximum(np.rint((high_3 - low_3) * scale_3 / spacing_3), 8).astype(int))
    axes_mm = [low + np.arange(n) * step for low, n, step in zip(low_3, shape, spacing_3 / scale_3, strict=True)]
    bend_mm = [smooth_noise(rng, shape, 110 / spacing_3) * sigma for sigma in (4, 3, 4)]

    canvas = Canvas(axes_mm, bend_mm)
    paint_trunk(canvas, girth, _vessels(rng, shape, spacing_3))
    paint_skeleton(canvas)
    for organ in organs:
        canvas.paint(organ)
    body = canvas.radius_ZYX < girth
    table = table_mask(body, spacing_3, gap_mm=max(0.0, rng.uniform(-10, 15)))
    canvas.image_ZYX[table] = rng.uniform(-40, 220)
    image_ZYX = _scan(canvas.image_ZYX, body, spacing_3, rng)
    vertebrae_ZYX = np.where(canvas.labels_ZYX == LABELS["spine"], vertebra_number(canvas.z_mm), 0).astype(np.uint8)
    return Phantom(
        image_ZYX, canvas.labels_ZYX, vertebrae_ZYX, (float(spacing_3[0]), float(spacing_3[1]), float(spacing_3[2]))
    )


def smooth_noise(rng: np.random.Generator, shape: Sequence[int], scale_vox: np.ndarray) -> np.ndarray:
    """Return a random cubic spline of zero mean and unit variance, float32 of `shape`.

    Args:
        rng: Source of the knots' values.
        shape: Edge lengths of the grid.
        scale_vox: Distance of neighbouring knots along each axis.
    """
    weights = [_spline_weights(length, scale) for length, scale in zip(shape, scale_vox, strict=True)]
    noise = rng.standard_normal([weight_NK.shape[1] for weight_NK in weights], dtype=np.float32)
    for weight_NK in weights:  # each turn takes the first axis and appends the interpolated one
        noise = np.tensordot(noise, weight_NK, axes=(0, 1))
    return noise


def _spline_weights(length: int, scale_vox: float) -> np.ndarray:
    """Return the cubic B-spline of each knot at each of `length` voxels, (length, K), rows of unit norm."""
    at = np.arange(length) / scale_vox
    knots = np.arange(-1, int(at[-1]) + 3)
    distance = np.abs(at[:, None] - knots)
    near, far = 2 / 3 - distance**2 + distance**3 / 2, np.clip(2 - distance, 0, None) ** 3 / 6
    weights = np.where(distance < 1, near, far)
    return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)


def _vessels(rng: np.random.Generator, shape: Sequence[int], spacing_3: np.ndarray) -> np.ndarray:
    """Return branching tubes: where two smooth fields both vanish, float32 in [0, 1]."""
    first, second = (smooth_noise(rng, shape, 13 / spacing_3) for _ in range(2))
    return np.exp(-(first**2 + second**2) / 0.08)


def table_mask(body_ZYX: np.ndarray, spacing_mm: Sequence[float] | np.ndarray, *, gap_mm: float) -> np.ndarray:
    """Return the table under a body: a curved shell, 6 mm thick and 420 mm wide.

    Args:
        body_ZYX: True inside the body.
        spacing_mm: Distance of voxel centres along (z, y, x).
        gap_mm: Distance between the body and the table where they are nearest; 0 lets them touch.

    Returns:
        bool (Z, Y, X), disjoint from the body.
    """
    _, depth, width = body_ZYX.shape
    y_mm, x_mm = np.arange(depth) * spacing_mm[1], (np.arange(width) - width / 2) * spacing_mm[2]
    rise_mm = x_mm**2 / 1400  # the edges bend upwards
    outline_YX = body_ZYX.any(axis=0)
    underside_mm = np.where(outline_YX, y_mm[:, None], -np.inf).max(axis=0)
    top_mm = (underside_mm + rise_mm).max() + 0.5 * spacing_mm[1] + gap_mm - rise_mm
    shell_YX = (y_mm[:, None] >= top_mm) & (y_mm[:, None] < top_mm + 6) & (np.abs(x_mm) < 210)
    return shell_YX & ~body_ZYX


def _scan(image_ZYX: np.ndarray, body_ZYX: np.ndarray, spacing_3: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the image as a scanner gives it: texture of the tissues, noise, blur; int16."""
    texture = smooth_noise(rng, image_ZYX.shape, 7 / spacing_3) * 7
    noise = rng.standard_normal(image_ZYX.shape, dtype=np.float32) * rng.uniform(22, 34)
    image_ZYX = image_ZYX + np.where(body_ZYX, texture + noise, 0.5 * noise)
    for axis, spacing in enumerate(spacing_3):
        image_ZYX = _blur(image_ZYX, axis, weight=min(0.3, 0.35 / spacing))
    return np.clip(np.rint(image_ZYX), MIN_HU, MAX_HU).astype(np.int16)


def _blur(image_ZYX: np.ndarray, axis: int, *, weight: float) -> np.ndarray:
    """Return the image mixed along an axis with its two neighbours, each of which counts `weight`."""
    image = np.moveaxis(image_ZYX, axis, 0)
    blurred = (1 - 2 * weight) * image
    blurred[1:] += weight * image[:-1]
    blurred[:-1] += weight * image[1:]
    blurred[[0, -1]] += weight * image[[0, -1]]
    return np.moveaxis(blurred, 0, axis)


def main(argv: Sequence[str] | None = None) -> None:
    """Run `voco_phantoms`."""
    parser = argparse.ArgumentParser(
        prog="voco_phantoms",
        description="Write CT-like phantoms of the torso: NIfTI files of mixed spacing, orientation and field of view, "
        "and the last one as a DICOM series. The same seed gives the same files. With --dataset: a raw dataset of "
        "nnU-Net, labels included, of other individuals.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("folder", metavar="OUT", type=Path, help="a new or empty folder; with --dataset: nnUNet_raw")
    parser.add_argument("-n", "--number", type=int, default=12, help="how many volumes; with --dataset: training cases")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other individuals")
    parser.add_argument("--spacing", type=float, default=3.0, metavar="MM", help="nominal distance of voxels")
    parser.add_argument("--no-dicom", action="store_true", help="write the last one as NIfTI, too")
    parser.add_argument("--dataset", type=int, metavar="NUMBER", help="write a labelled dataset of this number")
    parser.add_argument("--test", type=int, default=10, metavar="N", help="test cases of the dataset")
    parser.add_argument(
        "--labels",
        choices=sorted(LABELLINGS),
        default="organs",
        help="what the dataset labels: all organs, those that differ by place alone, or levels of the spine, two "
        "vertebrae each, which do so as well",
    )
    args = parser.parse_args(argv)

    try:  # these load SimpleITK: too slow for --help
        if args.dataset is not None:
            from nnunetv2_voco.pretrain.phantom_dataset import write_phantom_dataset

            folder = write_phantom_dataset(
                args.folder,
                args.dataset,
                training=args.number,
                test=args.test,
                seed=args.seed,
                spacing_mm=args.spacing,
                labelling=args.labels,
            )
            print(f"{args.number} training and {args.test} test cases in {folder}")
            return
        from nnunetv2_voco.pretrain.phantom_files import write_phantoms

        paths = write_phantoms(
            args.folder, number=args.number, seed=args.seed, spacing_mm=args.spacing, dicom=not args.no_dicom
        )
    except (ValueError, FileExistsError) as error:
        parser.error(str(error))
    series = sum(path.is_dir() for path in paths)
    print(f"{len(paths)} phantoms in {args.folder}: {len(paths) - series} NIfTI, {series} DICOM series")
