"""Fixtures shared by all tests, and the import path of a bare checkout."""

import random
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import nnunetv2_voco

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
SEED = 20240117

if find_spec("nnunetv2_voco.trainers") is None:  # a bare checkout: the rooms lie beside the package, not inside it
    nnunetv2_voco.__path__.append(str(ROOT))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Every test and its fixtures draw the same numbers, whichever ran before: what fails once fails again."""
    random.seed(SEED)
    np.random.seed(SEED)  # nnU-Net draws from it
    torch.manual_seed(SEED)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


@pytest.fixture(scope="session")
def shared_ct() -> Path:
    """The folder of real CTs; tests that need it are skipped where it is absent."""
    folder = SHARED / "data" / "ct"
    if not folder.is_dir():
        pytest.skip(f"real CTs are not here ({folder})")
    return folder
