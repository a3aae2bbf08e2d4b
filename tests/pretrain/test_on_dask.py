"""Pre-processing on a local Dask cluster of two worker processes."""

import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_voco.pretrain import on_dask, preprocess_cli
from nnunetv2_voco.pretrain.cache import VolumeCache
from nnunetv2_voco.pretrain.cached import cached_collection
from nnunetv2_voco.pretrain.collect import collect
from nnunetv2_voco.pretrain.discover import VolumeSource
from nnunetv2_voco.pretrain.phantom import make_phantom
from nnunetv2_voco.pretrain.phantom_files import to_sitk
from nnunetv2_voco.pretrain.preprocess import Target
from nnunetv2_voco.pretrain.record import Record
from nnunetv2_voco.pretrain.workers import CRASHED
from tests.pretrain.index_records import refuse_or_die

TARGET = Target(spacing_mm=(8.0, 8.0, 8.0))

# distributed itself leaves sockets and event loops to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def scheduler():
    """Address of a scheduler with two workers of one thread, as on a cluster."""
    distributed = pytest.importorskip("distributed", reason="distributed is not installed (the extra dask)")
    dask = pytest.importorskip("dask")
    # one death is enough to tell: Dask's own number is three, and each restart of a worker takes seconds
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
    ):
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("input") / "cts"
    path.mkdir()
    for i in range(4):
        phantom = make_phantom(np.random.default_rng((11, i)), spacing_mm=8.0, field="chest")
        sitk.WriteImage(to_sitk(phantom.image_zyx, phantom.spacing_mm), str(path / f"{i}.nii.gz"))
    whole = (path / "0.nii.gz").read_bytes()
    (path / "truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    return path


@pytest.mark.slow
def test_cache_made_on_dask_is_the_one_made_here(scheduler, folder, tmp_path, capsys):
    here = VolumeCache(tmp_path / "here", TARGET)
    expected = collect([folder], here, target=TARGET, modality="CT", num_processes=0)
    with pytest.raises(SystemExit) as stop:
        preprocess_cli.main([str(folder), "-o", str(tmp_path / "dask"), "--spacing", "8", "--dask", scheduler])
    assert not stop.value.code
    assert "4 used, 1 rejected" in capsys.readouterr().out
    assert cached_collection(tmp_path / "dask", TARGET).volumes == expected.volumes
    made = [path.relative_to(here.folder) for path in here.folder.rglob("*") if path.is_file()]
    assert len(made) == 4 + 5 + 1 + 2
    for path in made:
        assert (tmp_path / "dask" / TARGET.digest / path).read_bytes() == (here.folder / path).read_bytes()


@pytest.mark.slow
def test_a_volume_that_kills_its_workers_is_rejected_and_the_others_are_done(scheduler):
    sources = {i: VolumeSource(name="killer" if i == 2 else f"{i}", files=(), file_format="nifti") for i in range(9)}
    done = dict(on_dask.process_on_dask(refuse_or_die, sources, None, TARGET, scheduler=scheduler))
    assert done.keys() == sources.keys()
    assert done[2] == Record(key="", reason=CRASHED)
    assert all(record.reason == "small" for i, record in done.items() if i != 2)


def test_absent_package_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"nnunetv2_voco\[dask\]"):
        next(on_dask.process_on_dask(refuse_or_die, {}, None, TARGET, scheduler="tcp://127.0.0.1:1"))
