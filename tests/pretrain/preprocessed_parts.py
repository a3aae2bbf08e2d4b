"""A folder of messy CTs pre-processed in parts, and the cache that comes of it."""

from io import StringIO
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from rich.console import Console

from nnunetv2_voco.pretrain.parts import PartRequest, preprocess_part
from nnunetv2_voco.pretrain.phantom import make_phantom
from nnunetv2_voco.pretrain.phantom_files import to_sitk, write_dicom

SPACING = (8.0, 8.0, 8.0)


def write_folder(path: Path) -> Path:
    """Five good volumes of two formats, a copy of one, a broken one, and a file that is no volume."""
    path.mkdir()
    phantoms = [make_phantom(np.random.default_rng((9, i)), spacing_mm=8.0, field="chest") for i in range(5)]
    for i, phantom in enumerate(phantoms[:4]):
        sitk.WriteImage(to_sitk(phantom.image_zyx, phantom.spacing_mm), str(path / f"volume{i}.nii.gz"))
    write_dicom(phantoms[4], path / "series", uid_seed="a")
    (path / "sub").mkdir()
    (path / "sub" / "copy.nii.gz").write_bytes((path / "volume1.nii.gz").read_bytes())
    whole = (path / "volume0.nii.gz").read_bytes()
    (path / "truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    labels = (phantoms[0].labels_zyx > 0).astype(np.uint8)
    sitk.WriteImage(to_sitk(labels, SPACING), str(path / "labels.nii.gz"))
    return path


def quiet() -> Console:
    return Console(file=StringIO(), width=200)


def preprocess(folder: Path, cache: Path, part: int = 0, parts: int = 1, **options):
    request = PartRequest(
        folders=(str(folder),), cache=cache, settings={"spacing": SPACING}, part=part, parts=parts, num_processes=0,
        **options,
    )  # fmt: skip
    return preprocess_part(request, quiet())


def stored(cache: Path) -> dict[str, bytes]:
    """All files of the cache proper: arrays, records and index."""
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in sorted(cache.rglob("*"))
        if path.is_file() and "sources" not in path.parts
    }


def printed(function, *arguments, **options) -> tuple[object, str]:
    console = quiet()
    result = function(*arguments, console, **options)
    return result, console.file.getvalue()
