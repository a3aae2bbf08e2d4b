import numpy as np
import pytest

from nnunetv2_voco.pretrain.crops import (
    BodyMap,
    base_corners,
    draw_crops,
    draw_region,
    first_rich,
    overlap_fractions,
    region_size,
)

BLOCK = 4


def counted_overlaps(crops: np.ndarray, bases: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """Count the voxels of each crop that carry each base crop's number."""
    owner = np.full(np.max(bases, axis=0) + 2 * np.array(size), -1)
    for number, corner in enumerate(bases):
        owner[tuple(slice(c, c + n) for c, n in zip(corner, size, strict=True))] = number
    rows = []
    for corner in crops:
        inside = owner[tuple(slice(c, c + n) for c, n in zip(corner, size, strict=True))]
        rows.append([(inside == number).sum() / np.prod(size) for number in range(len(bases))])
    return np.array(rows)


def full_map(shape: tuple[int, int, int]) -> BodyMap:
    return BodyMap(np.ones([-(-n // BLOCK) for n in shape]), BLOCK)


@pytest.mark.parametrize(("grid", "size"), [((1, 3, 3), (4, 4, 4)), ((2, 3, 2), (3, 5, 7)), ((3, 1, 2), (6, 2, 5))])
def test_overlaps_are_the_counted_shares_of_voxels(rng, grid, size):
    bases = base_corners(grid, size)
    slack = np.array(region_size(grid, size)) - size
    crops = rng.integers(0, slack, endpoint=True, size=(25, 3))
    overlaps = overlap_fractions(crops, bases, np.array(size))
    np.testing.assert_allclose(overlaps, counted_overlaps(crops, bases, size), atol=1e-12)
    np.testing.assert_allclose(overlaps.sum(axis=1), 1)


def test_overlap_is_one_with_itself_and_zero_with_neighbours():
    bases = base_corners((2, 2, 3), (3, 4, 5))
    np.testing.assert_array_equal(overlap_fractions(bases, bases, np.array((3, 4, 5))), np.eye(12))


def test_planar_grid_has_at_most_four_overlaps(rng):
    crops = rng.integers(0, (0, 128, 128), endpoint=True, size=(200, 3))
    overlaps = overlap_fractions(crops, base_corners((1, 3, 3), (64, 64, 64)), np.array((64, 64, 64)))
    assert ((overlaps > 0).sum(axis=1) <= 4).all()


def test_base_crops_fill_the_region_once():
    grid, size = (2, 1, 3), (3, 4, 2)
    count = np.zeros(region_size(grid, size), int)
    for corner in base_corners(grid, size):
        count[tuple(slice(c, c + n) for c, n in zip(corner, size, strict=True))] += 1
    assert (count == 1).all()


@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_body_fraction_of_aligned_boxes_is_the_mean_over_voxels(rng, dtype):
    full = 255 if dtype is np.uint8 else 1
    blocks = (rng.random((5, 6, 7)) * full).astype(dtype)
    voxels = np.kron(blocks.astype(float), np.ones((BLOCK,) * 3))
    outside = 12
    padded = np.pad(voxels, outside)
    corners = rng.integers(-3, 8, (60, 3)) * BLOCK
    size = np.array((3, 2, 1)) * BLOCK
    expected = []
    for corner in corners:
        box = padded[tuple(slice(c + outside, c + outside + n) for c, n in zip(corner, size, strict=True))]
        expected.append(box.sum() / size.prod() / full)
    np.testing.assert_allclose(BodyMap(blocks, BLOCK, full=full).fraction(corners, size), expected, atol=1e-12)


def test_body_fraction_far_outside_is_zero():
    corners = np.array([(-100, 0, 0), (0, 500, 0), (0, 0, -64), (99, 99, 99)])
    np.testing.assert_array_equal(full_map((32, 32, 32)).fraction(corners, np.array((16, 16, 16))), 0)


def test_body_fraction_of_full_body_is_one_wherever_the_box_lies(rng):
    corners = rng.integers(0, 40, (300, 3))
    for size in ((20, 20, 20), (8, 16, 12), (2, 1, 3), (13, 7, 22)):
        np.testing.assert_array_equal(full_map((128, 128, 128)).fraction(corners, np.array(size)), 1)


def test_rounding_to_blocks_is_unbiased_enough_near_an_edge():
    half = np.zeros((8, 8, 8))
    half[:4] = 1
    corners = np.array([(z, 0, 0) for z in range(0, 17)])
    truth = np.clip((16 - corners[:, 0]) / 16, 0, 1)
    fractions = BodyMap(half, BLOCK).fraction(corners, np.array((16, 16, 16)))
    assert np.abs(fractions - truth).max() <= 0.5 * BLOCK / 16


def test_region_lies_inside_a_larger_volume_and_reaches_both_ends(rng):
    volume, region = (30, 40, 50), (10, 20, 20)
    corners = np.array(
        [draw_region(rng, volume_shape=volume, region_shape=region, body=full_map(volume)) for _ in range(400)]
    )
    np.testing.assert_array_equal(corners.min(axis=0), 0)
    np.testing.assert_array_equal(corners.max(axis=0), np.subtract(volume, region))


def test_region_contains_a_smaller_volume(rng):
    volume, region = (10, 60, 15), (20, 20, 40)
    corners = np.array(
        [draw_region(rng, volume_shape=volume, region_shape=region, body=full_map(volume)) for _ in range(400)]
    )
    assert (corners[:, [0, 2]] <= 0).all()
    assert (corners[:, [0, 2]] + np.array((20, 40)) >= (10, 15)).all()
    assert (corners[:, 1] >= 0).all()
    assert (corners[:, 1] + 20 <= 60).all()


def test_region_of_the_volumes_size_is_the_volume(rng):
    corner = draw_region(rng, volume_shape=(8, 8, 8), region_shape=(8, 8, 8), body=full_map((8, 8, 8)))
    np.testing.assert_array_equal(corner, 0)


def test_regions_that_are_mostly_air_are_not_drawn(rng):
    blocks = np.zeros((40, 10, 10))
    blocks[20:] = 1
    corners = [
        draw_region(rng, volume_shape=(160, 40, 40), region_shape=(24, 24, 24), body=BodyMap(blocks, BLOCK))[0]
        for _ in range(300)
    ]
    assert min(corners) >= 80 - 24 + 0.25 * 24 - BLOCK
    assert max(corners) > 120


def test_first_rich_is_relative_to_the_richest():
    assert first_rich(np.array([0.0, 0.01, 0.05, 0.1]), 0.25) == 2
    assert first_rich(np.zeros(3), 0.25) == 0


def test_crops_lie_inside_the_region_and_are_spread_over_it(rng):
    volume, region, size = (40, 60, 60), (24, 48, 36), (8, 16, 12)
    crops = draw_crops(
        rng, 400, region_corner=np.array((4, 4, 8)), region_shape=region, size_vox=size, body=full_map(volume)
    )
    assert crops.shape == (400, 3)
    np.testing.assert_array_equal(crops.min(axis=0), 0)
    np.testing.assert_array_equal(crops.max(axis=0), np.subtract(region, size))
    np.testing.assert_allclose(crops.mean(axis=0), np.subtract(region, size) / 2, rtol=0.1)


def test_crops_hold_body(rng):
    blocks = np.zeros((10, 30, 30))
    blocks[:, :15] = 1
    body, size = BodyMap(blocks, BLOCK), np.array((16, 16, 16))
    corner = np.array((8, -8, 12))
    crops = draw_crops(rng, 300, region_corner=corner, region_shape=(16, 96, 96), size_vox=tuple(size), body=body)
    assert (body.fraction(crops + corner, size) >= 0.2).all()


def test_without_a_least_share_crops_are_drawn_anywhere(rng):
    body = BodyMap(np.zeros((4, 4, 4)), BLOCK)
    crops = draw_crops(
        rng, 300, region_corner=np.zeros(3, int), region_shape=(16, 48, 48), size_vox=(16,) * 3, body=body, min_body=0
    )
    np.testing.assert_array_equal(crops.max(axis=0), (0, 32, 32))


def test_crops_find_a_small_body_in_a_big_region(rng):
    volume, region, size = (16, 24, 24), (32, 96, 96), (32, 32, 32)
    body = full_map(volume)
    for _ in range(20):
        corner = draw_region(rng, volume_shape=volume, region_shape=region, body=body)
        crops = draw_crops(rng, 4, region_corner=corner, region_shape=region, size_vox=size, body=body)
        # the whole volume would be 0.28 of a crop
        assert (body.fraction(crops + corner, np.array(size)) > 0).all()


def test_same_generator_draws_the_same():
    def draw() -> list:
        rng = np.random.default_rng(3)
        body = full_map((50, 50, 50))
        corner = draw_region(rng, volume_shape=(50, 50, 50), region_shape=(16, 48, 48), body=body)
        crops = draw_crops(rng, 2, region_corner=corner, region_shape=(16, 48, 48), size_vox=(16,) * 3, body=body)
        return [corner.tolist(), crops.tolist()]

    assert draw() == draw()
