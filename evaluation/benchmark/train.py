"""One run in a process of its own: nnU-Net's training and validation, then surface distances.

    python -m nnunetv2_voco.evaluation.benchmark.train OUT RUN

It calls the functions behind `nnUNetv2_train`, because that command takes all cores on a CPU and draws progress.png
after every epoch, which takes longer than a short epoch. A run that is finished is left alone, one that was killed goes
on.
"""

import argparse
import os
import signal
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from nnunetv2_voco.atomic import write_json
from nnunetv2_voco.evaluation.benchmark.run import Machine, Run, can_measure_surfaces, has_checkpoint, read_manifest

SAVES = 10
"""How often a run saves what it can go on from, at least."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m nnunetv2_voco.evaluation.benchmark.train")
    parser.add_argument("out", type=Path, help="folder of the benchmark")
    parser.add_argument("run", help="id of the run")
    parser.add_argument("--end-with-parent", action="store_true", help="stop when standard input is closed")
    args = parser.parse_args(arguments)
    if args.end_with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        runs, machine = read_manifest(args.out)
    except OSError as error:
        sys.exit(str(error))
    chosen = [run for run in runs if run.id == args.run]
    if not chosen:
        sys.exit(f"{args.out}: has no run {args.run}; voco_benchmark lists those that it has in runs.json")
    with _lock(chosen[0].folder(args.out)):
        execute_run(args.out, chosen[0], machine)


def execute_run(out: Path, run: Run, machine: Machine) -> None:
    """Do what is still to be done of a run."""
    os.environ.update(machine.environment(out))
    if run.is_finished(out):
        print(f"{run.id} is finished")
    else:
        print(f"{run.command(machine.device)}    # with nnUNet_results={os.environ['nnUNet_results']}", flush=True)
        _train_and_validate(run, out, machine)
    if machine.device != "cpu" and can_measure_surfaces() and not run.surfaces(out).is_file():
        from nnunetv2_voco.evaluation.benchmark.surface import score_run  # else when results are collected: one import

        score_run(out, run)


def _train_and_validate(run: Run, out: Path, machine: Machine) -> None:
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

    from nnunetv2_voco.evaluation.benchmark.curves import curve_of_logger

    torch.set_num_threads(machine.threads if machine.device == "cpu" else 1)
    folder = run.folder(out)
    is_trained = (folder / "checkpoint_final.pth").is_file()
    resume = has_checkpoint(folder) and not is_trained
    trainer = get_trainer_from_args(
        run.dataset, run.configuration, run.fold, run.trainer, run.plans, resume, torch.device(machine.device)
    )
    trainer.save_every = max(1, min(trainer.save_every, trainer.num_epochs // SAVES))
    trainer.logger.plot_progress_png = lambda output_folder: None  # curve.json has the numbers
    maybe_load_checkpoint(trainer, resume, is_trained)
    if machine.device == "cuda":
        torch.backends.cudnn.benchmark = True
    if not is_trained:
        trainer.run_training()
    write_json(run.curve(out), curve_of_logger(trainer.logger))
    trainer.perform_actual_validation(False)


def _lock(folder: Path) -> AbstractContextManager:
    """Keep a second process out of a run's folder for as long as this one lives.

    Raises:
        SystemExit: If another one is at it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return nullcontext()
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        sys.exit(f"{folder}: another process is at this run; wait for it or end it")
    return file


def _end_with_parent() -> None:
    """Wait until whoever started this process is gone, then end it and its workers."""
    os.read(0, 1)  # not through sys.stdin, whose lock the interpreter wants when it ends
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main()
