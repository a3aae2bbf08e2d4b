"""What is done before the first run: check that everything fits, and write each run's plans."""

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

from nnunetv2_voco.atomic import write_atomically, write_json
from nnunetv2_voco.evaluation.benchmark.config import Benchmark, ConfigError
from nnunetv2_voco.evaluation.benchmark.grid import PlannedRun
from nnunetv2_voco.evaluation.benchmark.run import COPY, Machine, write_manifest
from nnunetv2_voco.foresee import foresee
from nnunetv2_voco.source import PLANS_KEY, WeightSource
from nnunetv2_voco.target import read_target
from nnunetv2_voco.transfer import TransferError


def machine_of(benchmark: Benchmark) -> Machine:
    """Return how every run uses the machine."""
    workers = benchmark.workers
    if workers is None and benchmark.device == "cpu":
        workers = 0
    return Machine(device=benchmark.device, threads=benchmark.threads_of_a_run, workers=workers)


def check_trainers(planned: list[PlannedRun]) -> None:
    """Raise if nnU-Net does not find a trainer, before anything runs.

    Raises:
        ConfigError: If a schedule has no trainer.
    """
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from nnunetv2_voco.registration import register

    register()
    for schedule, trainer in {item.run.schedule: item.run.trainer for item in planned}.items():
        try:
            with redirect_stdout(io.StringIO()):  # it tells where it searches
                recursive_find_trainer_class_by_name(trainer)
        except RuntimeError:
            raise ConfigError(f"schedules: {schedule!r}: nnU-Net finds no trainer {trainer}") from None


def check_transfers(planned: list[PlannedRun], say: Callable[[str], None]) -> None:
    """Load each checkpoint into each network that will start from it, and say how much of the encoder it gives.

    Raises:
        ConfigError: If one does not fit.
        CheckpointError: If one cannot be read.
    """
    seen = set()
    for item in planned:
        key = (item.run.dataset, str(item.plans.get("configurations")), item.run.configuration, item.run.initialisation)
        if PLANS_KEY not in item.plans or key in seen:
            continue
        seen.add(key)
        source = WeightSource(**item.plans[PLANS_KEY])
        target = read_target(item.dataset.folder, item.plans, item.run.configuration)
        checkpoint = source.open()
        place = f"{item.run.dataset} {item.run.configuration} from {item.run.initialisation}"
        try:
            report = foresee(
                target,
                item.plans,
                checkpoint,
                decoder=source.decoder,
                across_families=source.across_families,
                insist=source.insist,
            ).report
        except TransferError as error:
            raise ConfigError(f"{place}: {error}") from None
        say(f"{place}: {str(report).splitlines()[0]}")
        for note in report.notes:
            say(f"  note: {note}")


def write_runs(benchmark: Benchmark, planned: list[PlannedRun], *, file: Path) -> None:
    """Write every run's plans beside those of its data set; list of runs and a copy of `file` into the folder."""
    benchmark.out.mkdir(parents=True, exist_ok=True)
    text = file.read_text(encoding="utf-8")
    write_atomically(benchmark.out / COPY, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    for item in planned:
        write_plans(item)
    write_manifest(benchmark.out, [item.run for item in planned], machine_of(benchmark))


def write_plans(item: PlannedRun) -> Path:
    """Write the plans of one run, unless they are there."""
    file = item.dataset.folder / f"{item.run.plans}.json"
    write_json(file, item.plans)
    return file
