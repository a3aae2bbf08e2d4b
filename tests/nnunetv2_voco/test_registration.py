import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distributions, version
from pathlib import Path

import pytest

from nnunetv2_voco.registration import VARIABLE, discovery_folder, register
from tests.conftest import ROOT
from tests.nnunetv2_voco.planned_dataset import plans, write_cases, write_plans
from tests.test_structure import FOLDERS

FIND = (
    "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find; "
    "import nnunetv2_voco; print(find('nnUNetTrainerVoCo').__module__, nnunetv2_voco.__file__)"
)
TRAIN = """
import torch, nnunetv2_voco
from nnunetv2.run.run_training import get_trainer_from_args
trainer = get_trainer_from_args("Dataset999_Tiny", "3d_fullres", 0, "nnUNetTrainerVoCo_5ep", device=torch.device("cpu"))
trainer.run_training()
print("trained with", nnunetv2_voco.__file__)
"""
HELP = """
import sys
from importlib.metadata import distribution
for command in distribution("nnunetv2_voco").entry_points.select(group="console_scripts"):
    sys.argv = [command.name, "--help"]
    try:
        command.load()()
    except SystemExit as end:
        assert not end.code, command
    else:
        raise AssertionError(command)
"""


def run(code: str, folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """Run Python outside the checkout, with nothing of this process's settings that could help."""
    environment = {name: value for name, value in os.environ.items() if name not in (VARIABLE, "PYTHONPATH")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def wheel_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    here = int(version("setuptools").split(".")[0]) >= 77  # as pyproject.toml asks; otherwise pip fetches it
    options = ["--no-deps", *["--no-build-isolation"] * here, "--wheel-dir", str(folder)]
    subprocess.run([*pip, "wheel", *options, str(copy_of_checkout(folder / "source"))], check=True)
    wheel = next(folder.glob("*.whl"))
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    return folder


def copy_of_checkout(target: Path) -> Path:
    """Building in the checkout would leave files there."""
    target.mkdir()
    for name in FOLDERS.values():
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)
    return target


def test_folder_is_appended_once_and_after_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/users/own")
    register()
    register()
    assert os.environ[VARIABLE] == os.pathsep.join(["/users/own", discovery_folder()])


def test_registering_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunetv2_voco.registration.discovery_folder", lambda: 1 / 0)
    register()


def test_folder_holds_one_module() -> None:
    assert sorted(path.name for path in Path(discovery_folder()).glob("*.py")) == ["__init__.py", "voco_trainers.py"]


@pytest.mark.parametrize("module", ["nnunetv2_voco", "nnunetv2_voco.registration"])
def test_what_torch_imports_imports_nothing_heavy(module: str) -> None:
    code = f"import {module}, sys; sys.exit(bool({{'torch', 'numpy', 'nnunetv2'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def ready_to_train(preprocessed: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set whose plans lay down a training of a few seconds, and weights to start from."""
    lengths = {"epochs": 1, "iterations_per_epoch": 1, "val_iterations_per_epoch": 1}
    write_plans(preprocessed, plans() | {"nnunetv2_voco_experiment": lengths})
    write_cases(preprocessed)
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(checkpoint))
    return preprocessed


@pytest.mark.slow
def test_trainer_is_found_and_trains_right_after_an_editable_install(tmp_path: Path, ready_to_train: Path) -> None:
    origins = [json.loads(found.read_text("direct_url.json") or "{}") for found in distributions(name="nnunetv2_voco")]
    if not any(origin.get("dir_info", {}).get("editable") for origin in origins):
        pytest.skip("the package is not installed in editable mode here")
    result = run(FIND, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "nnunetv2_voco.trainers.nnUNetTrainerVoCo" in result.stdout
    result = run(TRAIN, tmp_path)
    assert "(100.0%) come from the checkpoint" in result.stdout, result.stderr
    assert f"trained with {ROOT}" in result.stdout, result.stderr


@pytest.mark.slow
def test_trainer_is_found_and_trains_right_after_installing_the_wheel(
    wheel_folder: Path, tmp_path: Path, ready_to_train: Path
) -> None:
    site = wheel_folder / "site"
    result = run(FIND, tmp_path, PYTHONPATH=str(site))
    assert result.returncode == 0, result.stderr
    assert f"nnunetv2_voco.trainers.nnUNetTrainerVoCo {site}" in result.stdout
    result = run(TRAIN, tmp_path, PYTHONPATH=str(site))
    assert "(100.0%) come from the checkpoint" in result.stdout, result.stderr
    assert f"trained with {site}" in result.stdout, result.stderr


@pytest.mark.slow
def test_every_command_of_the_wheel_explains_itself(wheel_folder: Path, tmp_path: Path) -> None:
    result = run(HELP, tmp_path, PYTHONPATH=str(wheel_folder / "site"))
    assert result.returncode == 0, result.stderr
    for command in ("voco_pretrain", "voco_plan", "voco_export", "voco_inspect"):
        assert f"usage: {command}" in result.stdout


@pytest.mark.slow
def test_documented_fallback_finds_the_trainer(wheel_folder: Path, tmp_path: Path) -> None:
    off = {"PYTHONPATH": str(wheel_folder / "site"), "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    assert "Could not find requested nnunet trainer" in run(FIND, tmp_path, **off).stderr
    printed = subprocess.run(
        [sys.executable, "-m", "nnunetv2_voco"],
        cwd=tmp_path,
        env=os.environ | off,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert run(FIND, tmp_path, **off, **{VARIABLE: printed}).returncode == 0


@pytest.mark.slow
def test_wheel_holds_every_module_and_the_type_marker(wheel_folder: Path) -> None:
    names = set(zipfile.ZipFile(next(wheel_folder.glob("*.whl"))).namelist())
    for package, folder in ((name.replace(".", "/"), ROOT / room) for name, room in FOLDERS.items()):
        modules = {f"{package}/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*.py")}
        assert modules <= names
    assert "nnunetv2_voco/py.typed" in names
