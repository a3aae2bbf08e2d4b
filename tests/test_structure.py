import ast
import configparser
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import nnunetv2_voco
from tests.conftest import ROOT

FOLDERS = {
    "nnunetv2_voco": "nnunetv2_voco",
    "nnunetv2_voco.pretrain": "pretrain",
    "nnunetv2_voco.trainers": "trainers",
    "nnunetv2_voco.evaluation": "evaluation",
    "nnunetv2_voco.embedding": "embedding",
    "nnunetv2_voco.labelling": "labelling",
}
ROOMS_SEEN = {
    "pretrain": set(),
    "trainers": set(),
    "evaluation": set(),
    "embedding": {"pretrain"},
    "labelling": {"pretrain"},
}
"""Which other rooms each room may import, beside the middle one."""


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def files_of(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def test_rooms_import_the_middle_and_only_the_rooms_that_they_may_see():
    for folder, seen in ROOMS_SEEN.items():
        hidden = tuple(f"nnunetv2_voco.{other}" for other in ROOMS_SEEN.keys() - seen - {folder})
        for path in files_of(folder):
            assert not any(name.startswith(hidden) for name in imports_of(path)), path.name


def test_the_middle_room_imports_none_of_the_others():
    for path in files_of("nnunetv2_voco"):
        if path.parent.name == "discovery":  # the one re-export that nnU-Net scans
            continue
        outward = tuple(f"nnunetv2_voco.{room}" for room in ROOMS_SEEN)
        assert not any(name.startswith(outward) for name in imports_of(path)), path.name


def test_every_folder_with_code_is_a_listed_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = set()
    for package, folder in FOLDERS.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT / folder).parts
            found.add(".".join([package, *inner]))
    assert listed == found


def test_importing_the_package_imports_neither_torch_nor_numpy():
    code = (
        "import sys, nnunetv2_voco, nnunetv2_voco.registration; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent).returncode == 0


def test_installed_version_is_that_of_the_package():
    assert version("nnunetv2_voco") == nnunetv2_voco.__version__
