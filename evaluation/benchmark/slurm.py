"""The same runs as an array of SLURM jobs."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_voco.atomic import write_atomically
from nnunetv2_voco.evaluation.benchmark.run import Machine, Run

TASKS = "tasks.txt"
SCRIPT = "benchmark.sbatch"

CARRIED = ("nnUNet_raw", "nnUNet_preprocessed")
"""Variables of the present shell that the jobs need."""


def emit(folder: Path, out: Path, runs: Sequence[Run], machine: Machine, *, environment: dict[str, str]) -> Path:
    """Write an array script and its list of tasks, one run a line, for the runs that are not finished.

    Args:
        folder: Where to write; is created.
        out: Folder of the benchmark, which the jobs must see under the same path.
        runs: All runs.
        machine: What each run uses.
        environment: Where the variables of nnU-Net are read from.

    Returns:
        The script.

    Raises:
        ValueError: If there is nothing left to do.
    """
    tasks = [run.id for run in runs if not run.is_finished(out)]
    if not tasks:
        raise ValueError(f"all {len(runs)} runs are finished; there is nothing to submit")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "slurm_logs").mkdir(exist_ok=True)
    _write(folder / TASKS, "\n".join(tasks) + "\n")
    exports = [f"export {name}={shlex.quote(environment[name])}" for name in CARRIED if name in environment]
    cpus = machine.threads if machine.device == "cpu" else (machine.workers or 12) + 1
    resources = [f"#SBATCH --cpus-per-task={cpus}"] + (["#SBATCH --gpus=1"] if machine.device == "cuda" else [])
    train = [sys.executable, "-m", "nnunetv2_voco.evaluation.benchmark.train", str(out)]
    lines = [
        "#!/usr/bin/env bash",
        "#SBATCH --job-name=voco_benchmark",
        f"#SBATCH --array=1-{len(tasks)}",
        *resources,
        "#SBATCH --mem=32G",
        "#SBATCH --time=48:00:00",
        "#SBATCH --requeue",
        f"#SBATCH --output={folder.resolve()}/slurm_logs/%a.txt",
        "#SBATCH --open-mode=append",
        "# Adapt time, memory and partition to your cluster. A task that was ended goes on when it is submitted again;",
        "# one that is finished does nothing. When all are done: voco_benchmark CONFIG.yaml --collect",
        "set -euo pipefail",
        *exports,
        f'run=$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {shlex.quote(str((folder / TASKS).resolve()))})',
        f'exec {shlex.join(train)} "$run"',
    ]
    _write(folder / SCRIPT, "\n".join(lines) + "\n")
    (folder / SCRIPT).chmod(0o755)
    return folder / SCRIPT


def _write(file: Path, text: str) -> None:
    write_atomically(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))
