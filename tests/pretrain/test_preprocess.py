import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ZScoreNormalization
from scipy import ndimage

from nnunetv2_voco.pretrain.body import find_body
from nnunetv2_voco.pretrain.discover import discover
from nnunetv2_voco.pretrain.phantom import LABELS, Phantom, make_phantom
from nnunetv2_voco.pretrain.phantom_files import to_sitk, write_dicom
from nnunetv2_voco.pretrain.preprocess import (
    AIR_HU,
    HIGHEST_HU,
    HISTOGRAM_EDGES,
    Target,
    block_means,
    count_hu,
    prepare,
)
from nnunetv2_voco.pretrain.read import read_volume

SPACING = (4.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(np.random.default_rng(5), spacing_mm=SPACING, field="chest")


def body_on_voxels(image: sitk.Image) -> np.ndarray:
    mask = sitk.Resample(find_body(image), image, sitk.Transform(), sitk.sitkNearestNeighbor)
    return sitk.GetArrayFromImage(mask).astype(bool)


def ball(shape: tuple[int, int, int], radius: float) -> np.ndarray:
    grid = np.indices(shape) - (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
    return (grid**2).sum(axis=0) < radius**2


def test_body_is_the_patient_without_the_table(phantom):
    mask = body_on_voxels(to_sitk(phantom.image_zyx, phantom.spacing_mm))
    tissue = phantom.image_zyx > -400
    pieces, _ = ndimage.label(ndimage.binary_opening(tissue, np.ones((1, 5, 5))))
    patient = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    assert mask[patient].mean() > 0.999
    filled = np.array([ndimage.binary_fill_holes(section) for section in patient])
    far = ndimage.distance_transform_edt(~filled, sampling=SPACING) > 16
    assert (tissue & far).sum() > 100  # there is a table
    assert mask[tissue & far].mean() < 0.02


def test_lungs_and_all_organs_are_body(phantom):
    mask = body_on_voxels(to_sitk(phantom.image_zyx, phantom.spacing_mm))
    for name in ("lung_left", "lung_right", "heart", "spine"):
        inside = phantom.labels_zyx == LABELS[name]
        assert inside.sum() > 100
        assert mask[inside].mean() > 0.99, name


def test_lung_that_a_crop_cuts_open_is_body(phantom):
    left = np.argwhere(phantom.labels_zyx == LABELS["lung_left"])
    z, y, x = left.min(axis=0)
    _, y_end, x_end = left.max(axis=0)
    middle = (x + x_end) // 2  # cuts through the left lung
    crop = slice(None), slice(max(0, y - 4), y_end + 4), slice(None, middle)
    image, labels = (np.ascontiguousarray(a[crop]) for a in (phantom.image_zyx, phantom.labels_zyx))
    mask = body_on_voxels(to_sitk(image, phantom.spacing_mm))
    assert (labels[:, :, -1] == LABELS["lung_left"]).mean() > 0.05
    assert mask[labels == LABELS["lung_left"]].mean() > 0.95
    assert mask[labels == LABELS["lung_right"]].mean() > 0.95


def test_body_without_air_is_everything():
    assert body_on_voxels(to_sitk(np.full((12, 30, 30), 40, np.int16), (4, 4, 4))).all()


def test_without_tissue_everything_is_body():
    assert body_on_voxels(to_sitk(np.full((12, 30, 30), -900, np.int16), (4, 4, 4))).all()


def test_outside_of_the_body_is_air_and_the_rim_is_cropped(phantom):
    prepared = prepare(to_sitk(phantom.image_zyx, phantom.spacing_mm), Target(spacing_mm=SPACING))
    assert prepared.array.dtype == np.int16
    assert prepared.array.flags["C_CONTIGUOUS"]
    assert prepared.array.shape[1] < phantom.image_zyx.shape[1] - 10
    assert (prepared.array == AIR_HU).mean() > 0.05
    body = np.kron(prepared.body_map, np.ones((8, 8, 8)))[tuple(slice(n) for n in prepared.array.shape)]
    assert (prepared.array[body == 0] == AIR_HU).all()


@pytest.mark.parametrize("axes", ["RAS", "LPI", "PIR", "SLA", "ASL", "RSP"])
def test_stored_orientation_does_not_matter(phantom, axes):
    image = to_sitk(phantom.image_zyx, phantom.spacing_mm)
    turned = sitk.DICOMOrient(image, axes)
    target = Target(spacing_mm=(5.0, 4.0, 4.0))
    first, second = prepare(image, target), prepare(turned, target)
    assert turned.GetDirection() != image.GetDirection()
    np.testing.assert_array_equal(first.array, second.array)
    np.testing.assert_array_equal(first.body_map, second.body_map)
    np.testing.assert_array_equal(first.histogram, second.histogram)
    assert first.content == second.content


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_positions_are_physical(transpose):
    shape, spacing, origin = (14, 40, 36), (5.0, 2.0, 2.5), (11.0, -7.0, 30.0)
    slope = np.array((2.03, -1.57, 1.013))  # HU per mm along z, y, x
    mm = [o + s * np.arange(n) for o, s, n in zip(origin, spacing, shape, strict=True)]
    values = 50 + sum(a * m for a, m in zip(slope, np.meshgrid(*mm, indexing="ij"), strict=True))
    image = sitk.GetImageFromArray(np.rint(values).astype(np.int16))
    image.SetSpacing(spacing[::-1])
    image.SetOrigin(origin[::-1])
    wanted = (4.0, 3.0, 2.0)  # along the cached axes
    array = prepare(image, Target(spacing_mm=wanted, transpose=transpose)).array
    back = np.argsort(transpose)
    new = np.array(wanted)[back]  # along z, y, x
    start = np.array(origin) - 0.5 * np.array(spacing) + 0.5 * new
    expected_shape = np.rint(np.array(shape) * spacing / new).astype(int)
    mm = [o + s * np.arange(n) for o, s, n in zip(start, new, expected_shape, strict=True)]
    # half a voxel beyond the outermost centres the nearest one counts
    ends = [(o, o + s * (n - 1)) for o, s, n in zip(origin, spacing, shape, strict=True)]
    mm = [np.clip(m, *end) for m, end in zip(mm, ends, strict=True)]
    truth = 50 + sum(a * m for a, m in zip(slope, np.meshgrid(*mm, indexing="ij"), strict=True))
    result = array.transpose(back)
    assert result.shape == truth.shape
    inside = tuple(slice(1, -1) for _ in range(3))
    assert (result != AIR_HU).all()
    assert np.abs(result - truth)[inside].max() <= 1.01  # rounded before and after
    assert abs((result - truth)[inside].mean()) < 0.05  # not cut off towards zero


def test_nothing_of_a_body_is_lost_at_the_images_ends():
    image = to_sitk(np.full((47, 61, 59), 40, np.int16), (0.7, 0.7, 0.7))
    array = prepare(image, Target(spacing_mm=(0.7, 0.7, 0.7))).array
    assert array.shape == (47, 61, 59)
    assert (array == 40).all()


def test_metal_is_cut_and_histogram_counts_the_body():
    image = np.full((10, 40, 40), -1000, np.int16)
    image[:, 5:35, 5:35] = 50
    image[5, 20, 20] = 20000
    prepared = prepare(to_sitk(image, (4, 4, 4)), Target(spacing_mm=(4.0, 4.0, 4.0)))
    assert prepared.array.max() == HIGHEST_HU
    assert len(prepared.histogram) == len(HISTOGRAM_EDGES) - 1
    fullest = prepared.histogram.argmax()
    assert HISTOGRAM_EDGES[fullest] < 50 < HISTOGRAM_EDGES[fullest + 1]
    assert prepared.histogram.sum() == pytest.approx(9000 / 7, rel=0.35)  # one in seven, the body has a rim


def test_counts_are_those_of_a_histogram(rng):
    values = np.concatenate([rng.integers(AIR_HU, HIGHEST_HU + 1, 5000), [AIR_HU, HIGHEST_HU]]).astype(np.int16)
    np.testing.assert_array_equal(count_hu(values), np.histogram(values, bins=HISTOGRAM_EDGES)[0])


def test_block_means_equal_brute_force(rng):
    mask = rng.random((13, 8, 21)) > 0.4
    means = block_means(mask, 8)
    assert means.shape == (2, 1, 3)
    for index in np.ndindex(means.shape):
        block = mask[tuple(slice(8 * i, 8 * i + 8) for i in index)]
        assert means[index] == round(255 * block.sum() / 512)


@pytest.mark.parametrize("use_mask", [False, True])
def test_z_score_is_that_of_nnunet_within_the_nonzero_box(rng, use_mask):
    shape = (20, 24, 22)
    raw = np.where(ball(shape, 8), rng.uniform(100, 400, shape), 0).astype(np.float32)
    target = Target(spacing_mm=(1.0, 1.0, 1.0), normalization="ZScoreNormalization", use_mask_for_norm=use_mask)
    array = prepare(to_sitk(raw, (1.0, 1.0, 1.0)), target).array / 1000
    box = tuple(slice(i.min(), i.max() + 1) for i in np.nonzero(raw))
    outside = np.where(raw[box] > 0, 0, -1)
    expected = ZScoreNormalization(use_mask_for_norm=use_mask, intensityproperties={}).run(raw[box].copy(), outside)
    np.testing.assert_allclose(array, expected, atol=0.00051)


def test_rim_of_a_normalised_volume_is_not_mixed_with_raw_zeros(rng):
    raw = np.zeros((20, 30, 30), np.float32)
    raw[5:15, 8:22, 8:22] = 1000 + rng.normal(0, 1, (10, 14, 14))
    target = Target(spacing_mm=(1.0, 1.0, 1.0), normalization="ZScoreNormalization")
    array = prepare(to_sitk(raw, (1.5, 1.5, 1.5)), target).array / 1000
    truth = ZScoreNormalization(use_mask_for_norm=False, intensityproperties={}).run(raw[5:15, 8:22, 8:22].copy())
    np.testing.assert_allclose(array.mean(axis=0)[0].mean(), truth.mean(axis=0)[0].mean(), atol=0.1)
    assert array.shape == (15, 21, 21)
    assert array.min() >= truth.min() - 1e-3


def test_empty_volume_is_refused():
    target = Target(spacing_mm=(1.0, 1.0, 1.0), normalization="ZScoreNormalization")
    with pytest.raises(ValueError, match="background"):
        prepare(to_sitk(np.zeros((8, 8, 8), np.float32), (1, 1, 1)), target)


def test_copies_in_two_formats_have_one_content(tmp_path, phantom):
    sitk.WriteImage(to_sitk(phantom.image_zyx, phantom.spacing_mm, stored_ras=True), str(tmp_path / "a.nii.gz"))
    write_dicom(phantom, tmp_path / "series", uid_seed="copy")
    sources = discover([tmp_path]).sources
    assert {source.file_format for source in sources} == {"nifti", "dicom"}
    target = Target(spacing_mm=(6.0, 6.0, 6.0))
    first, second = (prepare(read_volume(source).image, target) for source in sources)
    assert first.content == second.content
    np.testing.assert_array_equal(first.array, second.array)


def test_other_voxels_have_another_content(phantom):
    changed = phantom.image_zyx.copy()
    changed[3, 3, 3] += 1
    target = Target(spacing_mm=(8.0, 8.0, 8.0))
    contents = {prepare(to_sitk(a, phantom.spacing_mm), target).content for a in (phantom.image_zyx, changed)}
    assert len(contents) == 2


def test_equal_targets_share_a_digest_and_others_do_not():
    one = Target(spacing_mm=(1, 2, 3))
    assert one.digest == Target(spacing_mm=(1.0, 2.0, 3.0)).digest
    others = [
        Target(spacing_mm=(1, 3, 2)),
        Target(spacing_mm=(1, 2, 3), transpose=(1, 0, 2)),
        Target(spacing_mm=(1, 2, 3), normalization="ZScoreNormalization"),
        Target(spacing_mm=(1, 2, 3), normalization="ZScoreNormalization", use_mask_for_norm=True),
        Target(spacing_mm=(1, 2, 3), version=99),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 6
