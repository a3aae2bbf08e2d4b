"""`voco_benchmark`: run, continue, submit or collect a benchmark. Heavy imports wait until help has been given."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from nnunetv2_voco.evaluation.benchmark.config import Benchmark
    from nnunetv2_voco.evaluation.benchmark.execute import Failure

_DESCRIPTION = """\
Fine-tune from checkpoints and from scratch in nnU-Net, with few and many labels, and say what pre-training is worth.

The data sets must be planned and pre-processed by nnU-Net. The same command goes on after an interruption: finished
runs stay, unfinished ones continue. OUT (in the file) receives results.csv, runs.csv, curves.csv, table.md and
report.html; the data sets' folders receive plans nnUNetPlans_VoCoBench_*.json and nothing else."""

_EXAMPLES = """\
examples:
  voco_benchmark mine.yaml                        run, or go on, and report
  voco_benchmark mine.yaml --dry-run              check everything, list the runs
  voco_benchmark mine.yaml --emit-slurm DIR       write an array script; then sbatch DIR/benchmark.sbatch
  voco_benchmark mine.yaml --collect              report on what is finished so far
  voco_benchmark --example hippocampus            print a file to start from"""

EXAMPLES = ("hippocampus", "sarcoma", "paper")
"""Files in evaluation/tasks: two small ones for a CPU, and the tasks of the paper with their sources."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(
        prog="voco_benchmark",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("config", type=Path, nargs="?", metavar="CONFIG.yaml", help="see docs/benchmark.md")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="check data sets and checkpoints, list the runs, and stop")
    what.add_argument("--emit-slurm", type=Path, metavar="DIR", help="write a SLURM array in place of running")
    what.add_argument("--example", choices=EXAMPLES, help="print a file to start from, and stop")
    what.add_argument("--collect", action="store_true", help="report on what is finished, run nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run `voco_benchmark`; errors that a user can mend are printed without a traceback."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.example:
        print(example(args.example), end="")
        return
    if args.config is None:
        parser.error("name a file; voco_benchmark --example hippocampus prints one to start from")

    from rich.console import Console

    from nnunetv2_voco.evaluation.benchmark.config import read_benchmark

    console = Console() if sys.stdout.isatty() else Console(width=160)
    try:
        benchmark = read_benchmark(args.config)
        failures: list[Failure] = []
        if not args.collect:
            done = _run(benchmark, args, console)
            if done is None:
                return
            failures = done
        _report(benchmark.out, args.config.stem, console)
    except KeyboardInterrupt:
        sys.exit("\nvoco_benchmark: interrupted; the same command goes on")
    except (OSError, ValueError) as error:
        if os.environ.get("VOCO_TRACEBACK"):
            raise
        sys.exit(f"voco_benchmark: {error}")
    if failures:
        _say_failures(benchmark.out, failures, console)
        sys.exit(1)


def example(name: str) -> str:
    """Return the text of a file in evaluation/tasks."""
    from importlib.resources import files

    return (files("nnunetv2_voco.evaluation") / "tasks" / f"{name}.yaml").read_text(encoding="utf-8")


def _run(benchmark: "Benchmark", args: argparse.Namespace, console: "Console") -> "list[Failure] | None":
    """Prepare, and run unless only something else was asked for; return the failures, or None if nothing was run."""
    if not os.environ.get("nnUNet_preprocessed"):
        raise ValueError("nnUNet_preprocessed is not set; export the folder where nnU-Net pre-processed the data sets")

    from nnunetv2_voco.evaluation.benchmark.execute import execute
    from nnunetv2_voco.evaluation.benchmark.grid import plan_runs
    from nnunetv2_voco.evaluation.benchmark.prepare import check_trainers, check_transfers, machine_of, write_runs

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    planned = plan_runs(benchmark, say)
    runs = [item.run for item in planned]
    check_trainers(planned)
    check_transfers(planned, say)
    if args.dry_run:
        for run in runs:
            state = "finished" if run.is_finished(benchmark.out) else f"{run.training_cases} training cases"
            console.print(f"{run.id}  {state}", highlight=False, soft_wrap=True)
        console.print(f"{len(runs)} runs, into {benchmark.out}", highlight=False)
        return None
    write_runs(benchmark, planned, file=args.config)
    if args.emit_slurm is not None:
        from nnunetv2_voco.evaluation.benchmark.slurm import emit

        environment = dict(os.environ)
        script = emit(args.emit_slurm, benchmark.out, runs, machine_of(benchmark), environment=environment)
        console.print(f"wrote {script}; submit it with\n  sbatch {script}", highlight=False)
        return None
    return execute(benchmark.out, runs, jobs=benchmark.jobs, console=console)


def _report(out: Path, title: str, console: "Console") -> None:
    """Collect what is finished, write tables and report, and say what they say."""
    from nnunetv2_voco.evaluation.benchmark.collect import collect, write_tables
    from nnunetv2_voco.evaluation.benchmark.report import write_report
    from nnunetv2_voco.evaluation.benchmark.run import can_measure_surfaces, read_manifest
    from nnunetv2_voco.evaluation.benchmark.surface import score_missing

    runs, _ = read_manifest(out)
    if not can_measure_surfaces():
        console.print('HD95 and NSD are left out; for them: pip install "nnunetv2_voco\\[benchmark]"')
    score_missing(out, runs, console)
    results = collect(out, runs)
    write_tables(out, runs, results)
    if not results:
        console.print("no run is finished yet")
        return
    for sentence in write_report(out, runs, results, title=title):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{len(results)} of {len(runs)} runs are finished; report: {out / 'report.html'}",
        highlight=False,
        soft_wrap=True,
    )


def _say_failures(out: Path, failures: "list[Failure]", console: "Console") -> None:
    for failure in failures:
        console.print(f"\nfailed: {failure.run.id}; the end of {failure.run.log(out)}:", highlight=False)
        console.print(failure.tail, highlight=False, markup=False, soft_wrap=True)
    console.print(f"\n{len(failures)} runs failed; the same command tries them again")
