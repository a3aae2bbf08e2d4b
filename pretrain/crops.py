"""Geometry of one VoCo sample: a region, its grid of base crops, random crops and their overlap.

Arrays only: no images, no configuration, no randomness but the generator handed in.

Shape suffixes: T = random crops, B = base crops, 3 = (z, y, x).
"""

import numpy as np


def region_size(grid: tuple[int, int, int], size_vox: tuple[int, int, int]) -> tuple[int, int, int]:
    """Edge lengths in voxels of the region that `grid` base crops of `size_vox` fill."""
    z, y, x = (int(n * edge) for n, edge in zip(grid, size_vox, strict=True))
    return z, y, x


def base_corners(grid: tuple[int, int, int], size_vox: tuple[int, int, int]) -> np.ndarray:
    """Lower corners of the base crops within the region, row by row, last axis fastest.

    Returns:
        int array (B, 3) with B = product of `grid`.
    """
    cells_B3 = np.stack(np.unravel_index(np.arange(np.prod(grid)), grid), axis=1)
    return cells_B3 * np.asarray(size_vox)


def overlap_fractions(crops_T3: np.ndarray, bases_B3: np.ndarray, size_vox: np.ndarray) -> np.ndarray:
    """Share of each random crop's volume that lies inside each base crop.

    Args:
        crops_T3: Lower corners of the random crops in voxels.
        bases_B3: Lower corners of the base crops in the same frame.
        size_vox: Edge lengths of every crop, shape (3,).

    Returns:
        float array (T, B) in [0, 1]; a row sums to 1 where the crop lies within the grid.
    """
    gap_TB3 = np.abs(np.asarray(crops_T3)[:, None] - np.asarray(bases_B3)[None])
    return np.clip(1 - gap_TB3 / np.asarray(size_vox), 0, None).prod(axis=-1)


class BodyMap:
    """Answers which share of a box is body, at a cost that does not depend on the size of the map.

    Args:
        body: Share of body in each block of `block` voxels, shape (z, y, x), in 0…`full`; what lies outside is air.
        block: Edge length of a block in voxels.
        full: The value of a block that is all body.
    """

    def __init__(self, body: np.ndarray, block: int, full: float = 1.0) -> None:
        self.block = block
        self._body, self._full = body, full

    def fraction(self, corners_T3: np.ndarray, size_vox: np.ndarray) -> np.ndarray:
        """Share of body in each box, (T,) in [0, 1]; corners and edges are rounded to whole blocks, at least one.

        Args:
            corners_T3: Lower corners in voxels; may lie outside the map.
            size_vox: Edge lengths of every box, shape (3,).
        """
        edges = np.maximum(_nearest(np.asarray(size_vox) / self.block), 1)
        low = _nearest(np.asarray(corners_T3) / self.block)
        boxes_T6 = np.concatenate([np.maximum(low, 0), np.maximum(low + edges, 0)], axis=1).tolist()
        dtype = float if self._body.dtype.kind == "f" else int
        totals = [self._body[a:d, b:e, c:f].sum(dtype=dtype) for a, b, c, d, e, f in boxes_T6]
        return np.array(totals) / (self._full * edges.prod())


def _nearest(numbers: np.ndarray) -> np.ndarray:
    """Round to the nearest integers, halves upwards: boxes of one size cover the same number of blocks anywhere."""
    return np.floor(numbers + 0.5).astype(int)


def draw_region(
    rng: np.random.Generator,
    *,
    volume_shape: tuple[int, int, int],
    region_shape: tuple[int, int, int],
    body: BodyMap,
    candidates: int = 8,
    min_body: float = 0.25,
) -> np.ndarray:
    """Draw the lower corner of a region, not one that is mostly air.

    Along an axis where the region fits into the volume it lies inside; where the volume is the smaller one, it lies
    inside the region. Of the candidates the first is taken of whose volume `min_body` is body, as a share of what the
    richest of them has (a head fills little of a region made for a torso); so at least one is always good.

    Returns:
        int array (3,), in voxels of the volume; negative where padding is needed before it.
    """
    slack = np.asarray(volume_shape) - np.asarray(region_shape)
    low, high = np.minimum(slack, 0), np.maximum(slack, 0)
    corners = rng.integers(low, high, endpoint=True, size=(candidates, 3))
    return corners[first_rich(body.fraction(corners, np.asarray(region_shape)), min_body)]


def first_rich(body: np.ndarray, min_body: float) -> int:
    """Index of the first entry that is at least `min_body` of the largest; 0 if all are empty."""
    return int(np.argmax(body >= min_body * body.max()))


def draw_crops(
    rng: np.random.Generator,
    number: int,
    *,
    region_corner: np.ndarray,
    region_shape: tuple[int, int, int],
    size_vox: tuple[int, int, int],
    body: BodyMap,
    candidates: int = 16,
    min_body: float = 0.2,
) -> np.ndarray:
    """Draw lower corners of random crops inside a region, uniformly among those that hold some body.

    A crop of air or padding says nothing about where it lies, but its label claims a place.

    Args:
        rng: Source of randomness.
        number: How many crops.
        region_corner: Lower corner of the region in the volume, shape (3,).
        region_shape: Edge lengths of the region in voxels.
        size_vox: Edge lengths of a crop in voxels.
        body: Where the volume's body is.
        candidates: Draws per crop; if none has `min_body`, the richest is taken.
        min_body: Least share of body in a crop.

    Returns:
        int array (number, 3), relative to the region.
    """
    slack = np.asarray(region_shape) - np.asarray(size_vox)
    corners = rng.integers(0, slack, endpoint=True, size=(number * candidates, 3))
    fractions = body.fraction(corners + region_corner, np.asarray(size_vox)).reshape(number, candidates)
    enough = fractions >= min_body
    chosen = np.where(enough.any(axis=1), enough.argmax(axis=1), fractions.argmax(axis=1))
    return corners.reshape(number, candidates, 3)[np.arange(number), chosen]
