"""From the benchmark's file to its runs, and from a run to the plans that make it differ from the others."""

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

from nnunetv2_voco.evaluation.benchmark.amounts import count_cases, training_subset, validation_subset
from nnunetv2_voco.evaluation.benchmark.config import STOCK, Benchmark, DatasetGrid, Initialisation
from nnunetv2_voco.evaluation.benchmark.datasets import PlannedDataset, open_dataset
from nnunetv2_voco.evaluation.benchmark.run import Run
from nnunetv2_voco.source import PLANS_KEY, WeightSource, digest, local_file

EXPERIMENT_KEY = "nnunetv2_voco_experiment"
"""Key of the plans under which the trainers find the cases, the seed and the length of a run."""

TRAINER = "nnUNetTrainerVoCo"
PLANS_PREFIX = "nnUNetPlans_VoCoBench_"


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run and the plans it trains with.

    Attributes:
        run: The run.
        dataset: Its data set.
        plans: The data set's plans, with the weights and the experiment in them.
    """

    run: Run
    dataset: PlannedDataset
    plans: dict[str, Any]


def plan_runs(benchmark: Benchmark, say: Callable[[str], None] = lambda text: None) -> list[PlannedRun]:
    """Return all runs, seed by seed and from few labels to many, each once.

    Runs that would be the same, because two amounts of labels mean the same number of cases, are one run.

    Args:
        benchmark: What is asked for.
        say: Is told of data sets that are left out.

    Raises:
        ValueError: If the file asks for what a data set does not have.
        FileNotFoundError: If a data set, plans or a checkpoint are missing.
    """
    planned: dict[str, PlannedRun] = {}
    for grid in benchmark.datasets:
        try:
            dataset = open_dataset(grid.dataset, grid.plans)
        except FileNotFoundError as error:
            if not benchmark.skip_missing:
                raise
            say(f"left out: {error}")
            continue
        for item in _runs_of_dataset(grid, dataset):
            planned.setdefault(item.run.id, item)
    if not planned:
        raise FileNotFoundError("none of the data sets is pre-processed")
    return sorted(planned.values(), key=lambda item: item.run.seed)  # stable: the file's order within a seed


def weight_source(
    initialisation: Initialisation, *, seed: int, labels: str, digest_of: Callable[[str], str]
) -> WeightSource | None:
    """Return the block of `voco_plan` for a run with an initialisation; None for a start from scratch.

    Args:
        initialisation: Weights.
        seed: Of the run; stands for {seed} in the checkpoint's name.
        labels: Amount of labels of the run; its number stands for {labels}.
        digest_of: Reads the file's digest.

    Raises:
        FileNotFoundError: If the checkpoint is missing.
    """
    if initialisation.checkpoint is None:
        return None
    checkpoint = initialisation.checkpoint.replace("{seed}", str(seed)).replace("{labels}", labels.rstrip("%"))
    return WeightSource(
        checkpoint=checkpoint,
        sha256=digest_of(checkpoint),
        decoder=initialisation.decoder,
        across_families=initialisation.across_families,
        insist=initialisation.insist,
    )


def _runs_of_dataset(grid: DatasetGrid, dataset: PlannedDataset) -> Iterator[PlannedRun]:
    digest_of = cache(lambda checkpoint: digest(local_file(checkpoint)))
    for configuration in grid.configurations:
        dataset.check_configuration(configuration)
    for configuration, fold in product(grid.configurations, grid.folds):
        training, validation = dataset.fold_cases(fold, configuration)
        validation = validation_subset(validation, grid.validation_cases, dataset=dataset.name, fold=fold)
        amounts = sorted(grid.labels, key=lambda amount: count_cases(amount, len(training)))
        for seed, amount, schedule, start in product(grid.seeds, amounts, grid.schedules, grid.initialisations):
            source = weight_source(start, seed=seed, labels=amount, digest_of=digest_of)
            subset_seed = seed if grid.subset_seed is None else grid.subset_seed
            count = count_cases(amount, len(training))
            experiment = {
                "training_cases": training_subset(training, count, dataset=dataset.name, fold=fold, seed=subset_seed),
                "validation_cases": validation,
                "seed": seed,
                "epochs": grid.epochs,
                "iterations_per_epoch": grid.iterations_per_epoch,
                "val_iterations_per_epoch": grid.val_iterations_per_epoch,
                "initial_lr": grid.initial_lr,
                "from_scratch": source is None,
            }
            if start.random is not None:
                experiment["initial_draw"] = start.random
            yield _planned_run(
                grid, dataset, configuration, source, experiment,
                initialisation=start.name, schedule=schedule, labels=amount, fold=fold,
            )  # fmt: skip


def _planned_run(
    grid: DatasetGrid,
    dataset: PlannedDataset,
    configuration: str,
    source: WeightSource | None,
    experiment: dict[str, Any],
    *,
    initialisation: str,
    schedule: str,
    labels: str,
    fold: int,
) -> PlannedRun:
    trainer = TRAINER if schedule == STOCK else f"{TRAINER}_{schedule}"
    content = copy.deepcopy(dataset.plans)
    content[EXPERIMENT_KEY] = experiment
    if source is not None:
        content[PLANS_KEY] = source.to_plans()
    cases = experiment["training_cases"]
    number = dataset.name.removeprefix("Dataset").split("_", 1)[0]
    name = f"{number}_{configuration}_{initialisation}_{schedule}_n{len(cases)}_f{fold}_s{experiment['seed']}"
    identity = f"{name}_{_fingerprint(content, trainer, configuration, fold)}"
    content["plans_name"] = f"{PLANS_PREFIX}{identity}"
    run = Run(
        id=identity,
        dataset=dataset.name,
        configuration=configuration,
        trainer=trainer,
        plans=content["plans_name"],
        initialisation=initialisation,
        schedule=schedule,
        labels=labels,
        training_cases=len(cases),
        validation_cases=len(experiment["validation_cases"]),
        fold=fold,
        seed=experiment["seed"],
        nsd_tolerance_mm=grid.nsd_tolerance_mm,
        initial_draw=experiment.get("initial_draw", 0),
        about=grid.about,
    )
    return PlannedRun(run=run, dataset=dataset, plans=content)


def _fingerprint(plans: dict[str, Any], trainer: str, configuration: str, fold: int) -> str:
    """Eight digits that change with whatever changes the result; a checkpoint counts by content, not by place."""
    content = copy.deepcopy(plans)
    if PLANS_KEY in content:
        del content[PLANS_KEY]["checkpoint"]
    text = json.dumps([content, trainer, configuration, fold], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
