"""Measures how training scales from one process to several on this machine.

    python benchmarks/scaling.py [FOLDER] [--processes 1,2] [--steps 12] [--repeats 3] [-- OPTION …]

Runs `voco_pretrain` under torchrun, alternately with each number of processes and the same batch per process, over
the CTs in FOLDER or over phantoms. Prints for each number: crops per second of all processes (median over steps, then
over repeats, and their range), the ratio to the first number, the efficiency (ratio over number of processes; 100 % is
perfect), and how long a step waited for data. Each process computes with one thread and has one loader, so on a CPU
give no more processes than half the cores if loading shall not disturb; on GPUs pass `-- --device cuda`.

What comes after `--` goes to `voco_pretrain`; without it a small network is trained, for which exchanging gradients
weighs more against computing than for the default one. Goal: at least 80 % for two processes on two cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from nnunetv2_voco.pretrain.phantom_files import write_phantoms

SMALL = "--spacing 3 --crop-size 32 --features 16,32,64,128 --batch-size 2 --device cpu".split()
WARM_UP = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", metavar="FOLDER")
    parser.add_argument("--processes", default="1,2", metavar="N,N,…", help="numbers of processes to compare")
    parser.add_argument("--steps", type=int, default=12, help=f"steps of a run, beside {WARM_UP} to warm up")
    parser.add_argument("--repeats", type=int, default=3, help="runs for each number of processes")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args, options = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    numbers = [int(n) for n in args.processes.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.folder) if args.folder else Path(temporary) / "phantoms"
        if not args.folder:
            write_phantoms(folder, number=6, spacing_mm=3.0, dicom=False)
        speeds: dict[int, list[float]] = {n: [] for n in numbers}
        waits: dict[int, list[float]] = {n: [] for n in numbers}
        for repeat in range(args.repeats):
            for n in numbers:
                out = Path(temporary) / f"run_{n}_{repeat}"
                records = run(folder, out, n, args.steps, options or SMALL, cache=Path(temporary) / "cache")
                speeds[n].append(float(np.median([r["crops_per_second"] for r in records])))
                waits[n].append(float(np.median([r["wait_seconds"] for r in records])))
    print(f"{'processes':>9}  {'crops/s':>22}  {'ratio':>6}  {'efficiency':>10}  {'wait a step':>11}")
    for n in numbers:
        median, base = np.median(speeds[n]), np.median(speeds[numbers[0]])
        span = f"{median:.1f} ({min(speeds[n]):.1f} to {max(speeds[n]):.1f})"
        efficiency = median / base * numbers[0] / n
        print(f"{n:>9}  {span:>22}  {median / base:>6.2f}  {efficiency:>10.0%}  {np.median(waits[n]) * 1e3:>8.1f} ms")


def run(folder: Path, out: Path, processes: int, steps: int, options: list[str], *, cache: Path) -> list[dict]:
    """Log records of the steps after the warm-up."""
    total = str(WARM_UP + steps)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}",
        "-m", "nnunetv2_voco.pretrain", str(folder), "-o", str(out), "--cache", str(cache), *options,
        "--steps", total, "--val-every", total, "--save-every", total, "--log-every", "1", "--num-workers", "1",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    records = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [r for r in records if r["kind"] == "training" and r["step"] > WARM_UP]


if __name__ == "__main__":
    main()
