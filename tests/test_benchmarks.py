"""The benchmark scripts run; what they measure is not tested, as it depends on the machine."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPTS = ("preprocessing", "sampling", "step", "loss", "finetuning")
NEED_MONAI = {"preprocessing", "sampling"}


def run(script: str, argument: str, folder: Path) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), argument]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_quick_benchmark_prints_a_table_and_leaves_nothing_behind(script, tmp_path):
    if script in NEED_MONAI and find_spec("monai") is None:
        pytest.skip('MONAI is not installed (pip install "nnunetv2_voco[benchmarks]")')
    assert "| ---" in run(script, "--quick", tmp_path)
    assert not list(tmp_path.iterdir())
