"""The benchmark scripts run; what they measure is not tested, as it depends on the machine."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPTS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text("utf-8"))
QUICK = ("preprocessing", "loss", "intervals")
"""Whose `--quick` takes seconds; the others train networks of full size."""

NEED_MONAI = {"preprocessing", "sampling"}


def run(script: str, argument: str, folder: Path) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), argument]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_every_script_says_what_it_measures(tmp_path):
    assert len(SCRIPTS) >= 8
    for script in SCRIPTS:
        assert "--help" in run(script, "--help", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("script", QUICK)
def test_quick_benchmark_prints_a_table_and_leaves_nothing_behind(script, tmp_path):
    if script in NEED_MONAI and find_spec("monai") is None:
        pytest.skip('MONAI is not installed (pip install "nnunetv2_voco[benchmarks]")')
    assert "| ---" in run(script, "--quick", tmp_path)
    assert not list(tmp_path.iterdir())
