from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetv2_voco.embedding.inputs import intensity_of
from nnunetv2_voco.embedding.points import MM_COLUMNS, VOXEL_COLUMNS, embed_points, read_points, to_array, to_mm
from nnunetv2_voco.encoder_model import load_encoder_model
from nnunetv2_voco.pretrain.discover import VolumeSource, discover
from nnunetv2_voco.pretrain.preprocess import Target, prepare
from nnunetv2_voco.pretrain.read import RawVolume, read_volume
from nnunetv2_voco.pretrain.rejection import RejectedVolume

TURNS = {
    "LPS": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    "RAS": (-1, 0, 0, 0, -1, 0, 0, 0, 1),
    "axes exchanged": (0, 0, -1, 1, 0, 0, 0, -1, 0),
    "oblique": (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1),
}


def marked_block(direction: tuple[float, ...]) -> tuple[sitk.Image, tuple[int, int, int]]:
    """A block of tissue in air, off the middle, with one bright place; and its voxel (i, j, k)."""
    hu = np.full((40, 44, 48), -1000, np.int16)
    hu[6:36, 5:40, 9:45] = 30
    i, j, k = 20, 27, 14
    hu[k - 1 : k + 2, j - 1 : j + 2, i - 1 : i + 2] = 2500
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((2.0, 2.0, 3.0))
    image.SetOrigin((-70.0, 33.0, 410.0))
    image.SetDirection([float(d) for d in direction])
    return image, (i, j, k)


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_place_is_found_in_the_prepared_array(turn: str, transpose: tuple[int, int, int]) -> None:
    image, voxel = marked_block(TURNS[turn])
    target = Target(spacing_mm=(2.5, 2.0, 1.5), transpose=transpose)
    volume = prepare(image, target)
    physical = to_mm(RawVolume(image=image, mended=()), np.array([voxel], float))
    np.testing.assert_allclose(physical[0], image.TransformIndexToPhysicalPoint(voxel))
    (place,) = to_array(image, physical, volume, target)
    bright = np.argwhere(volume.array > 1500).mean(axis=0)
    np.testing.assert_allclose(place, bright, atol=0.35)


def test_places_outside_are_refused_and_resampled_voxels_too() -> None:
    image, _ = marked_block(TURNS["LPS"])
    target = Target(spacing_mm=(3.0, 3.0, 3.0))
    volume = prepare(image, target)
    with pytest.raises(RejectedVolume, match=r"1 place\(s\) lie outside of it, the first at \(0\.0, 0\.0, 0\.0\) mm"):
        to_array(image, np.array([[-60.0, 50.0, 420.0], [0.0, 0.0, 0.0]]), volume, target)
    with pytest.raises(RejectedVolume, match="gantry tilt of 9.0° corrected.*name places by x_mm, y_mm, z_mm"):
        to_mm(RawVolume(image=image, mended=("gantry tilt of 9.0° corrected",), resampled=True), np.zeros((1, 3)))


def test_same_place_in_mm_and_voxels_has_the_same_features(cts: Path, checkpoint: Path) -> None:
    model = load_encoder_model(checkpoint)
    for source in discover([cts]).sources:
        image = read_volume(source).image
        voxels = np.array(image.GetSize())[None] * [[0.5, 0.5, 0.5], [0.3, 0.4, 0.6], [0.02, 0.02, 0.5]]
        physical = np.array([image.TransformContinuousIndexToPhysicalPoint(v.tolist()) for v in voxels])
        by_voxel, by_mm = (
            embed_points(
                model, source, places, columns,
                target=Target(spacing_mm=(8.0, 8.0, 8.0)), intensity=intensity_of(model.contract),
                size_vox=(16, 16, 16), device=torch.device("cpu"),
            )
            for places, columns in ((voxels, VOXEL_COLUMNS), (physical, MM_COLUMNS))
        )  # fmt: skip
        np.testing.assert_allclose(by_voxel, by_mm, rtol=1e-3, atol=1e-4)
        assert np.isfinite(by_voxel).all()
        assert np.abs(by_voxel[0] - by_voxel[1]).max() > 0.1


SOURCES = [
    VolumeSource(name=name, files=(), file_format="nifti")
    for name in ("cts/a.nii.gz", "cts/x/b.nii.gz", "cts/y/b.nii.gz")
]


def table(folder: Path, text: str) -> Path:
    (folder / "points.csv").write_text(text)
    return folder / "points.csv"


def test_volumes_are_named_as_in_the_tables_or_by_the_end_of_it(tmp_path: Path) -> None:
    path = table(tmp_path, "volume,x_mm,y_mm,z_mm,organ\na.nii.gz,1,2,3,liver\ncts/y/b.nii.gz,4,5,6,spleen\n")
    points = read_points(path, SOURCES)
    assert points.columns == MM_COLUMNS
    assert points.source_of_row.tolist() == [0, 2]
    assert points.table["organ"].tolist() == ["liver", "spleen"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as a CSV table"),
        (
            "volume,i,j\na.nii.gz,1,2\n",
            "expected rows with the columns volume and either x_mm.*found 1 rows of volume, i, j",
        ),
        ("volume,i,j,k\n", "found 0 rows"),
        ("volume,i,j,k\na.nii.gz,1,2,3\na.nii.gz,1,two,3\n", "line 3: i, j, k are not all numbers"),
        ("volume,i,j,k\nb.nii.gz,1,2,3\n", "volume 'b.nii.gz' fits several volumes"),
        ("volume,i,j,k\nc.nii.gz,1,2,3\n", "volume 'c.nii.gz' is no volume of the folder; there are cts/a.nii.gz"),
    ],
)
def test_bad_table_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_points(table(tmp_path, text), SOURCES)
