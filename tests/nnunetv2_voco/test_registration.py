import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

from nnunetv2_voco.registration import VARIABLE, discovery_folder, register
from tests.conftest import ROOT

FIND = (
    "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find; "
    "import nnunetv2_voco; print(find('nnUNetTrainerVoCo').__module__, nnunetv2_voco.__file__)"
)


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
    options = [
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
        str(copy_of_checkout(folder / "source")),
    ]
    subprocess.run([*pip, "wheel", *options], check=True)
    wheel = next(folder.glob("*.whl"))
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    return folder


def copy_of_checkout(target: Path) -> Path:
    """Building in the checkout would leave files there."""
    target.mkdir()
    for name in ("nnunetv2_voco", "trainers", "pretrain"):
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


@pytest.mark.slow
def test_trainer_is_found_right_after_an_editable_install(tmp_path: Path) -> None:
    origins = [json.loads(found.read_text("direct_url.json") or "{}") for found in distributions(name="nnunetv2_voco")]
    if not any(origin.get("dir_info", {}).get("editable") for origin in origins):
        pytest.skip("the package is not installed in editable mode here")
    result = run(FIND, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "nnunetv2_voco.trainers.nnUNetTrainerVoCo" in result.stdout


@pytest.mark.slow
def test_trainer_is_found_right_after_installing_the_wheel(wheel_folder: Path, tmp_path: Path) -> None:
    site = wheel_folder / "site"
    result = run(FIND, tmp_path, PYTHONPATH=str(site))
    assert result.returncode == 0, result.stderr
    assert f"nnunetv2_voco.trainers.nnUNetTrainerVoCo {site}" in result.stdout


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
    rooms = {"nnunetv2_voco": ROOT / "nnunetv2_voco"}
    rooms |= {f"nnunetv2_voco/{room}": ROOT / room for room in ("trainers", "pretrain")}
    for package, folder in rooms.items():
        modules = {f"{package}/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*.py")}
        assert modules <= names
    assert "nnunetv2_voco/py.typed" in names
