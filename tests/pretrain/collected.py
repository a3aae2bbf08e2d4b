"""Three phantoms in a folder, collected into a cache."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_voco.pretrain import collect as collect_module
from nnunetv2_voco.pretrain.cache import VolumeCache
from nnunetv2_voco.pretrain.collect import Collection, collect
from nnunetv2_voco.pretrain.phantom import Phantom, make_phantom
from nnunetv2_voco.pretrain.phantom_files import to_sitk
from nnunetv2_voco.pretrain.preprocess import Target

TARGET = Target(spacing_mm=(8.0, 8.0, 8.0))


def make_phantoms() -> list[Phantom]:
    """Three for the folder and another."""
    return [make_phantom(np.random.default_rng((3, i)), spacing_mm=8.0, field="chest") for i in range(4)]


def write_folder(path: Path, phantoms: list[Phantom]) -> Path:
    """Three good volumes."""
    path.mkdir()
    for name, phantom in zip("abc", phantoms, strict=False):
        write(phantom, path / f"{name}.nii.gz")
    return path


def note_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the volumes whose voxels were read, as they are read."""
    names: list[str] = []
    read = collect_module.read_volume

    def note(source, **options):
        names.append(source.name)
        return read(source, **options)

    monkeypatch.setattr(collect_module, "read_volume", note)
    return names


def write(phantom: Phantom, path: Path) -> None:
    sitk.WriteImage(to_sitk(phantom.image_zyx, phantom.spacing_mm), str(path))


def run(folder: Path, cache: VolumeCache | None, *, processes: int = 0, target: Target = TARGET) -> Collection:
    return collect([folder], cache, target=target, modality="CT", num_processes=processes)


def reasons(collection: Collection) -> dict[str, str | None]:
    return {volume.name: volume.record.reason for volume in collection.volumes}
