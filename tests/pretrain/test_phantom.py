import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from nnunetv2_voco.pretrain.phantom import FIELDS_MM, LABELS, LOOK_ALIKES, Phantom, main, make_phantom, table_mask
from nnunetv2_voco.pretrain.phantom_anatomy import ORGANS, vary_organs
from nnunetv2_voco.pretrain.phantom_files import PROTOCOLS, to_sitk, write_dicom, write_phantoms


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [make_phantom(np.random.default_rng((7, index)), spacing_mm=4.0) for index in range(8)]


def centre_mm(phantom: Phantom, name: str) -> np.ndarray:
    return np.argwhere(phantom.labels_zyx == LABELS[name]).mean(axis=0) * phantom.spacing_mm


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_same_seed_writes_the_same_bytes(tmp_path):
    for name in "ab":
        write_phantoms(tmp_path / name, number=3, seed=5, spacing_mm=8)
    assert bytes_below(tmp_path / "a") == bytes_below(tmp_path / "b")


def test_other_seed_gives_another_body():
    first, second = (make_phantom(np.random.default_rng(seed), spacing_mm=8) for seed in (0, 1))
    assert first.image_zyx.shape != second.image_zyx.shape or (first.image_zyx != second.image_zyx).any()


def test_a_volume_does_not_depend_on_how_many_are_written(tmp_path):
    few = write_phantoms(tmp_path / "few", number=1, spacing_mm=8, dicom=False)
    many = write_phantoms(tmp_path / "many", number=2, spacing_mm=8, dicom=False)
    assert few[0].read_bytes() == many[0].read_bytes()


def test_every_organ_is_in_every_torso(phantoms):
    for phantom in phantoms:
        assert set(np.unique(phantom.labels_zyx)) == {0, *LABELS.values()}


def test_organs_are_where_they_belong(phantoms):
    for phantom in phantoms:
        up, back, left = np.transpose([centre_mm(phantom, name) for name in LABELS])
        place = {name: index for index, name in enumerate(LABELS)}
        spine = left[place["spine"]]
        for name in ("liver", "lung_right", "kidney_right", "gland_right"):
            assert left[place[name]] < spine - 15, name
        for name in ("heart", "aorta", "stomach", "spleen", "lung_left", "kidney_left", "gland_left"):
            assert left[place[name]] > spine, name
        assert back[place["spine"]] == max(back)
        assert up[place["bladder"]] < up[place["kidney_left"]] < up[place["liver"]] < up[place["heart"]]
        assert up[place["nodule_upper"]] - up[place["nodule_lower"]] > 150


def test_look_alikes_have_the_same_intensities(phantoms):
    for pair in LOOK_ALIKES:
        values = [[phantom.image_zyx[phantom.labels_zyx == LABELS[name]] for phantom in phantoms] for name in pair]
        means = np.array([[organ.mean() for organ in organs] for organs in values])
        np.testing.assert_allclose(means[0], means[1], atol=20)
        assert abs(np.mean(means[0] - means[1])) < 6
        first, second = (np.std(np.concatenate(organs)) for organs in values)
        assert first == pytest.approx(second, rel=0.15)


def test_look_alikes_are_specified_alike(rng):
    organs = vary_organs(ORGANS, rng)
    for pair in LOOK_ALIKES:
        first, second = ([organ.hu for organ in organs if organ.name == name] for name in pair)
        assert first == second


def test_organs_vary_within_the_promised_range(rng):
    for before, after in zip(ORGANS, vary_organs(ORGANS, rng), strict=True):
        assert np.abs(np.subtract(before.centre_mm, after.centre_mm)).max() <= 8
        assert np.abs(np.divide(after.radii_mm, before.radii_mm) - 1).max() <= 0.15


def test_intensities_are_those_of_a_ct(phantoms):
    for phantom in phantoms:
        image, labels = phantom.image_zyx, phantom.labels_zyx
        assert image.dtype == np.int16
        assert labels.dtype == np.uint8
        assert image.min() >= -1024
        assert image.max() <= 3071
        assert -1010 < image[:, 0].mean() < -980  # air before the patient
        assert -900 < image[labels == LABELS["lung_left"]].mean() < -650
        assert 30 < image[labels == LABELS["liver"]].mean() < 130
        assert image[labels == LABELS["spine"]].mean() > 150
        assert 12 < image[labels == LABELS["bladder"]].std() < 40  # noise, with some texture and partial volume


def test_labels_lie_within_the_body(phantoms):
    for phantom in phantoms:
        parts, _ = ndimage.label(phantom.image_zyx > -300)
        body = parts == np.bincount(parts.ravel())[1:].argmax() + 1
        body = np.array([ndimage.binary_fill_holes(slice_yx) for slice_yx in body])
        assert (phantom.labels_zyx[~body] > 0).mean() < 1e-4  # where a slice cuts off a corner of a lung


@pytest.mark.parametrize("gap_mm", [0.0, 12.0])
def test_table_is_under_the_body_at_the_given_distance(gap_mm):
    spacing = (4.0, 2.0, 2.0)
    y, x = np.mgrid[-70:100, -100:100]
    body = np.repeat(((y / 60) ** 2 + (x / 90) ** 2 < 1)[None], 3, axis=0)
    table = table_mask(body, spacing, gap_mm=gap_mm)
    assert not (table & body).any()
    distance = ndimage.distance_transform_edt(~body, sampling=spacing)[table].min()
    assert gap_mm <= distance <= gap_mm + 4


def test_some_bodies_lie_off_the_table_and_some_on_it(phantoms):
    def body_height(phantom: Phantom) -> int:
        parts, _ = ndimage.label(phantom.image_zyx > -300)
        body = parts == np.bincount(parts.ravel())[1:].argmax() + 1
        return int(np.flatnonzero(body.any(axis=(0, 2))).max())

    lowest = [int(np.flatnonzero((phantom.image_zyx > -300).mean(axis=(0, 2)) > 0.02).max()) for phantom in phantoms]
    touching = [low - body_height(phantom) <= 1 for low, phantom in zip(lowest, phantoms, strict=True)]
    assert any(touching)
    assert not all(touching)


def test_partial_fields_of_view_lack_organs(rng):
    chest = make_phantom(rng, spacing_mm=6, field="chest").labels_zyx
    abdomen = make_phantom(rng, spacing_mm=6, field="abdomen").labels_zyx
    assert LABELS["bladder"] not in chest
    assert LABELS["nodule_upper"] in chest
    assert LABELS["nodule_upper"] not in abdomen
    assert LABELS["bladder"] in abdomen


def test_spacing_may_differ_between_axes(rng):
    phantom = make_phantom(rng, spacing_mm=(10.0, 5.0, 5.0))
    assert phantom.spacing_mm == (10.0, 5.0, 5.0)
    assert phantom.image_zyx.shape[0] < 45 < phantom.image_zyx.shape[1]


@pytest.mark.parametrize("stored_ras", [False, True])
def test_both_orders_of_storage_are_the_same_body_in_space(rng, stored_ras):
    phantom = make_phantom(rng, spacing_mm=(10.0, 7.0, 8.0))
    stored = to_sitk(phantom.image_zyx, phantom.spacing_mm, stored_ras=stored_ras)
    lps = sitk.DICOMOrient(stored, "LPS")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(lps), phantom.image_zyx)
    assert lps.GetSpacing() == (8.0, 7.0, 10.0)
    np.testing.assert_allclose(lps.GetOrigin(), to_sitk(phantom.image_zyx, phantom.spacing_mm).GetOrigin())


def test_dicom_series_reads_back_as_the_phantom(rng, tmp_path):
    phantom = make_phantom(rng, spacing_mm=(9.0, 6.3, 6.3))
    write_dicom(phantom, tmp_path / "series", uid_seed="test")
    reader = sitk.ImageSeriesReader()
    (series,) = reader.GetGDCMSeriesIDs(str(tmp_path / "series"))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "series"), series))
    image = reader.Execute()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), phantom.image_zyx)
    np.testing.assert_allclose(image.GetSpacing(), phantom.spacing_mm[::-1])
    np.testing.assert_allclose(image.GetDirection(), np.eye(3).ravel())
    np.testing.assert_allclose(image.GetOrigin(), to_sitk(phantom.image_zyx, phantom.spacing_mm).GetOrigin(), atol=1e-5)


def test_command_writes_nifti_files_and_one_series(tmp_path, capsys):
    main([str(tmp_path / "out"), "-n", "7", "--spacing", "8"])
    assert "7 phantoms" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [*(f"phantom_{index:03d}.nii.gz" for index in range(6)), "phantom_006_dicom"]
    image = sitk.ReadImage(str(tmp_path / "out" / names[3]))
    np.testing.assert_allclose(image.GetSpacing(), (8, 8, 40 / 3), rtol=1e-6)
    assert image.GetDirection()[0] == -1


def test_protocols_cover_every_field_and_both_orders():
    assert {protocol.field for protocol in PROTOCOLS} == set(FIELDS_MM)
    assert {protocol.stored_ras for protocol in PROTOCOLS} == {False, True}


def test_a_filled_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(SystemExit):
        main([str(tmp_path), "-n", "1"])
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("wrong", [{"number": 0}, {"seed": -1}, {"spacing_mm": 0.0}])
def test_impossible_arguments_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="expected at least 1"):
        write_phantoms(tmp_path, **wrong)
    with pytest.raises(ValueError, match="chest"):
        make_phantom(np.random.default_rng(0), field="head")


def test_a_phantom_is_made_within_two_seconds(rng):
    start = time.process_time()
    make_phantom(rng)
    assert time.process_time() - start < 2
