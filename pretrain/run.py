"""One run from folders to encoder: collect, plan, train. What `voco_pretrain` does, callable from Python."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from nnunetv2_voco.atomic import remove_leftovers
from nnunetv2_voco.pretrain import distributed
from nnunetv2_voco.pretrain.cache import VolumeCache
from nnunetv2_voco.pretrain.cached import cached_collection
from nnunetv2_voco.pretrain.collect import CollectError, collect
from nnunetv2_voco.pretrain.config import PretrainConfig
from nnunetv2_voco.pretrain.dataset_plans import read_dataset_plans
from nnunetv2_voco.pretrain.drawn import report_drawn
from nnunetv2_voco.pretrain.estimate import estimate_without_volumes, print_estimate
from nnunetv2_voco.pretrain.figures import draw_volumes
from nnunetv2_voco.pretrain.labelled.sets import differing_preprocessing
from nnunetv2_voco.pretrain.log import duration, make_console, progress_bar
from nnunetv2_voco.pretrain.loop import TrainingStopped, resolve_device, train
from nnunetv2_voco.pretrain.network import check_network
from nnunetv2_voco.pretrain.request import Request, RunError, check_folder, effective_config, weights_of
from nnunetv2_voco.pretrain.roofline import parse_gpus
from nnunetv2_voco.pretrain.tables import print_plan, print_table
from nnunetv2_voco.pretrain.training_plan import (
    TrainingPlan,
    labelled_data,
    make_labelled_plan,
    make_training_plan,
    preprocessing_target,
)
from nnunetv2_voco.pretrain.weights import group_volumes


def pretrain(request: Request) -> str | None:
    """Run stage 1.

    Returns:
        The verdict in words on rank 0; None elsewhere, after a dry run, or when a signal ended the run early.

    Raises:
        RunError, CollectError, TrainingStopped, ValueError: With a text for the user.
    """
    console = make_console()
    if request.dry_run and distributed.rank() > 0:
        return None
    if request.gpus is not None:
        parse_gpus(request.gpus)
    if request.dry_run and request.assumed_volumes and not request.folders:
        estimate_without_volumes(request, console)
        return None
    store = distributed.join_store()
    if distributed.rank() == 0:
        config, cache, plan = prepare(request, console)
        if request.dry_run:
            return None
        distributed.publish(store, "ready", "1")
    else:
        distributed.wait_for(store, "ready")
        if not (request.out / "plan.json").exists():
            raise RunError(
                f"{request.out}: holds no plan.json, which the first process has written; the folder and the cache "
                "must lie on a file system that all machines share"
            )
        config = effective_config(request)
        plan = TrainingPlan.load(request.out / "plan.json")
        cache = VolumeCache(request.cache_root, plan.target)
    distributed.start(resolve_device(config.device), store)
    try:
        verdict = train(config, plan, cache, request.out, console=console)
    except RuntimeError as error:
        if not distributed.lost_another(error):
            raise
        raise TrainingStopped(
            f"process {distributed.rank()} has lost another one ({str(error).splitlines()[0]}). The last state saved "
            "is sound: go on with --continue, or let torchrun do so with --max-restarts"
        ) from error
    finally:
        distributed.stop()
    if verdict is not None and config.learns_from.contrast:
        samples = config.steps * config.batch_size * config.accumulate * distributed.world_size()
        report_drawn(plan, seed=config.seed, samples=samples, out=request.out, console=console)
    return verdict


def prepare(request: Request, console: Console) -> tuple[PretrainConfig, VolumeCache, TrainingPlan]:
    """Settle the settings, collect the volumes and fix the plan; or read back what a continued run had fixed."""
    out = request.out
    check_folder(request)
    config = effective_config(request)
    resolve_device(config.device)
    plan_file = out / "plan.json"
    if out.is_dir():
        remove_leftovers(out)
    if request.resume and plan_file.exists():
        plan = TrainingPlan.load(plan_file)
        cache = VolumeCache(request.cache_root, plan.target)
        missing = cache.missing((*plan.training, *plan.validation))
        if not missing:
            config.save(out / "config.json")
            console.print(f"Continuing the run in {escape(str(out))}.", highlight=False)
            return config, cache, plan
        if not request.folders:
            raise RunError(
                f"{len(missing)} of the run's {len(plan.training) + len(plan.validation)} volumes are not in "
                f"{request.cache_root}; name the run's cache with --cache if it lies elsewhere, or give the folders "
                "of volumes again to pre-process what is missing"
            )
        console.print(f"{len(missing)} volumes of this run are not in the cache any more; pre-processing them again.")
    if request.folders and not config.learns_from.unlabelled:
        raise RunError(
            f"recipe {config.recipe}: learns from labelled datasets alone, but {request.folders[0]} is given; leave "
            "the folders of volumes out, or take --recipe omni or semi"
        )
    if config.learns_from.unlabelled and not request.folders and not request.cache_root.is_dir():
        raise RunError(
            "no folder of volumes was given; name it before -o, or name a cache that voco_preprocess made by --cache"
        )
    for folder in request.folders:
        if not Path(folder).exists():
            raise RunError(f"{folder}: no such folder; expected a folder of volumes")
    dataset_plans = (
        None
        if config.dataset is None
        else read_dataset_plans(config.dataset, configuration=config.configuration, plans=config.plans)
    )
    check_network(config, dataset_plans)
    weights = weights_of(request, config)
    labelled = labelled_data(config)
    if labelled is not None:
        warn_of_differences(config, console)
    target = preprocessing_target(config, dataset_plans)
    cache = VolumeCache(request.cache_root, target)
    out.mkdir(parents=True, exist_ok=True)
    if labelled is not None and dataset_plans is not None and not config.learns_from.unlabelled:
        plan = make_labelled_plan(config, target=target, plans=dataset_plans, labelled=labelled)
        if request.dry_run:
            print_estimate(config, plan, [], console, volumes=0, gpus=request.gpus)
            return config, cache, plan
        config.save(out / "config.json")
        plan.save(plan_file)
        print_plan(config, plan, console)
        return config, cache, plan
    if not request.dry_run:
        config.save(out / "config.json")

    started = time.monotonic()
    if request.folders:
        with progress_bar(console, "Checking volumes" if request.dry_run else "Pre-processing volumes") as on_progress:
            collection = collect(
                request.folders,
                None if request.dry_run else cache,
                target=target,
                modality="CT" if dataset_plans is None else dataset_plans.modality,
                num_processes=request.num_processes,
                on_progress=on_progress,
            )
    else:
        collection = cached_collection(request.cache_root, target)
    print_table(collection, console)
    collection.save(out / "volumes.json")
    records = [volume.record for volume in collection.usable]
    try:
        collection.require_usable()
        grouping = weights and group_volumes(weights, {v.record.key: v.name for v in collection.usable})
        histograms = None if request.folders and request.dry_run else cache.open_index().histograms
        plan = make_training_plan(
            config, records, target=target, plans=dataset_plans, labelled=labelled, grouping=grouping,
            histograms=histograms,
        )  # fmt: skip
    except (CollectError, ValueError):
        if not plan_file.exists():  # nothing has begun that other settings could spoil
            (out / "config.json").unlink(missing_ok=True)
        raise
    if grouping and grouping.unused:
        console.print(
            f"{len(grouping.unused)} name(s) in the table of weights fit no usable volume, such as "
            f"{escape(repr(grouping.unused[0]))}.",
            highlight=False,
        )
    if request.dry_run:
        shapes = [record.shape for record in records]
        print_estimate(
            config, plan, shapes, console,
            volumes=request.assumed_volumes or len(records), gpus=request.gpus, cropped=not request.folders,
        )  # fmt: skip
        console.print("Nothing was written but volumes.json.", highlight=False)
        return config, cache, plan
    console.print(
        f"{len(records)} volumes in the cache, {sum(r.bytes for r in records) / 1e6:.0f} MB, "
        f"{8 * sum(r.bytes for r in records) / sum(_voxels(r.shape) for r in records):.1f} bits a voxel, "
        f"after {duration(time.monotonic() - started)}.",
        highlight=False,
    )
    if plan_file.exists() and TrainingPlan.load(plan_file) != plan:
        raise RunError(
            f"{out}: the volumes found now are not those the run was started with; give the folders it was started "
            "with, or start a new run with another -o"
        )
    collection.save(
        out / "volumes.json",
        {**dict.fromkeys(plan.training, "training"), **dict.fromkeys(plan.validation, "validation")},
    )
    named = [(volume.name, volume.record) for volume in collection.usable]
    draw_volumes(out / "volumes.png", named, cache, plan.intensity, target.spacing_mm[1] / target.spacing_mm[2])
    plan.save(plan_file)  # last: a run that is continued takes its existence for all of the above
    print_plan(config, plan, console)
    return config, cache, plan


def warn_of_differences(config: PretrainConfig, console: Console) -> None:
    """Say where the labelled datasets were pre-processed in different ways."""
    different = differing_preprocessing(config.labelled, configuration=config.configuration, plans=config.plans)
    if different:
        console.print("The labelled datasets were pre-processed in different ways:", highlight=False)
        for line in different:
            console.print(f"  {line}", highlight=False, markup=False)


def _voxels(shape: Sequence[int]) -> int:
    z, y, x = shape
    return z * y * x
