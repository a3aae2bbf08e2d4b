"""One run from folders to encoder: collect, plan, train. What `voco_pretrain` does, callable from Python."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nnunetv2_voco.atomic import remove_leftovers
from nnunetv2_voco.pretrain import distributed
from nnunetv2_voco.pretrain.cache import Record, VolumeCache
from nnunetv2_voco.pretrain.cached import cached_collection
from nnunetv2_voco.pretrain.collect import CollectError, Collection, collect
from nnunetv2_voco.pretrain.config import PretrainConfig, differing_fields
from nnunetv2_voco.pretrain.drawn import report_drawn
from nnunetv2_voco.pretrain.estimate import TYPICAL_VOLUME_MM, print_estimate
from nnunetv2_voco.pretrain.figures import draw_volumes
from nnunetv2_voco.pretrain.log import duration, make_console, progress_bar
from nnunetv2_voco.pretrain.loop import TrainingStopped, resolve_device, train
from nnunetv2_voco.pretrain.roofline import parse_gpus
from nnunetv2_voco.pretrain.training_plan import (
    TrainingPlan,
    check_network,
    make_training_plan,
    preprocessing_target,
    read_dataset_plans,
)
from nnunetv2_voco.pretrain.weights import WeightRows, group_volumes, read_weights

ROWS_SHOWN = 60
"""Rows of the table of volumes that are printed; all are in volumes.json."""

_NOT_A_RUN = frozenset({"volumes.json", "cache"})
"""What an earlier `--dry-run`, or a cache, leaves in a folder that is no run yet."""


class RunError(RuntimeError):
    """A run cannot start; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks for.

    Attributes:
        folders: Where the volumes lie; none for all volumes that the cache holds.
        out: The run's folder.
        settings: Fields of `PretrainConfig` that were given, presets included.
        cache: Root of the cache; `out/cache` if None.
        resume: Whether to go on with the run in `out`.
        dry_run: Whether to stop after checking the volumes.
        num_processes: Volumes that are pre-processed at once.
        assumed_volumes: For a dry run, how many volumes to reckon with; those of the folders if None.
        gpus: For a dry run, the GPUs to reckon with, see `roofline.parse_gpus`; this machine if None.
    """

    folders: tuple[str, ...]
    out: Path
    settings: dict[str, Any] = field(default_factory=dict)
    cache: Path | None = None
    resume: bool = False
    dry_run: bool = False
    num_processes: int = 4
    assumed_volumes: int | None = None
    gpus: str | None = None


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
        config = _effective_config(request)
        plan = TrainingPlan.load(request.out / "plan.json")
        cache = VolumeCache(_cache_root(request), plan.target)
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
    if verdict is not None:
        samples = config.steps * config.batch_size * config.accumulate * distributed.world_size()
        report_drawn(plan, seed=config.seed, samples=samples, out=request.out, console=console)
    return verdict


def prepare(request: Request, console: Console) -> tuple[PretrainConfig, VolumeCache, TrainingPlan]:
    """Settle the settings, collect the volumes and fix the plan; or read back what a continued run had fixed."""
    out = request.out
    _check_folder(request)
    config = _effective_config(request)
    resolve_device(config.device)
    plan_file = out / "plan.json"
    if out.is_dir():
        remove_leftovers(out)
    if request.resume and plan_file.exists():
        plan = TrainingPlan.load(plan_file)
        cache = VolumeCache(_cache_root(request), plan.target)
        missing = cache.missing((*plan.training, *plan.validation))
        if not missing:
            config.save(out / "config.json")
            console.print(f"Continuing the run in {escape(str(out))}.", highlight=False)
            return config, cache, plan
        if not request.folders:
            raise RunError(
                f"{len(missing)} of the run's {len(plan.training) + len(plan.validation)} volumes are not in "
                f"{_cache_root(request)}; name the run's cache with --cache if it lies elsewhere, or give the folders "
                "of volumes again to pre-process what is missing"
            )
        console.print(f"{len(missing)} volumes of this run are not in the cache any more; pre-processing them again.")
    if not request.folders and not _cache_root(request).is_dir():
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
    weights = _weights(request, config)
    target = preprocessing_target(config, dataset_plans)
    cache = VolumeCache(_cache_root(request), target)
    out.mkdir(parents=True, exist_ok=True)
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
        collection = cached_collection(_cache_root(request), target)
    print_table(collection, console)
    collection.save(out / "volumes.json")
    records = [volume.record for volume in collection.usable]
    try:
        collection.require_usable()
        grouping = weights and group_volumes(weights, {v.record.key: v.name for v in collection.usable})
        histograms = None if request.folders and request.dry_run else cache.open_index().histograms
        plan = make_training_plan(
            config, records, target=target, plans=dataset_plans, grouping=grouping, histograms=histograms
        )
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
            config, plan, shapes, console, volumes=request.assumed_volumes or len(records), gpus=request.gpus
        )
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
    _print_plan(config, plan, console)
    return config, cache, plan


def estimate_without_volumes(request: Request, console: Console) -> None:
    """Print what a run over so many volumes of a typical size would take; nothing is read or written."""
    config = PretrainConfig(**{name: value for name, value in request.settings.items() if name != "weights"})
    dataset_plans = (
        None
        if config.dataset is None
        else read_dataset_plans(config.dataset, configuration=config.configuration, plans=config.plans)
    )
    target = preprocessing_target(config, dataset_plans)
    extents_and_spacings = zip(target.transpose, target.spacing_mm, strict=True)
    z, y, x = (max(1, round(TYPICAL_VOLUME_MM[axis] / spacing)) for axis, spacing in extents_and_spacings)
    records = [Record(key=str(i), content=str(i), shape=(z, y, x)) for i in range(2)]
    plan = make_training_plan(config, records, target=target, plans=dataset_plans)
    extent = " × ".join(f"{mm:g}" for mm in TYPICAL_VOLUME_MM)
    console.print(f"No volumes given; reckoning with CTs of {extent} mm (z, y, x).", highlight=False)
    print_estimate(config, plan, [(z, y, x)], console, volumes=request.assumed_volumes or 1, gpus=request.gpus)


def print_table(collection: Collection, console: Console, *, listed_in: str = "volumes.json") -> None:
    """Print what was found and what becomes of it; `listed_in` names the file that holds all of it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("volume", no_wrap=True, max_width=70)
    for title in ("", "size (x, y, z)", "spacing in mm"):
        table.add_column(title, no_wrap=True)
    table.add_column("note", overflow="fold", min_width=30)
    rejected = [v for v in collection.volumes if not v.record.usable]
    for volume in collection.usable[: max(0, ROWS_SHOWN - len(rejected))]:
        size = " × ".join(str(n) for n in volume.record.original_shape[::-1])
        spacing = " × ".join(f"{s:.3g}" for s in volume.record.original_spacing_mm[::-1])
        table.add_row(escape(volume.name), "[green]used[/]", size, spacing, escape("; ".join(volume.record.mended)))
    for volume in rejected[:ROWS_SHOWN]:
        table.add_row(escape(volume.name), "[red]rejected[/]", "", "", escape(volume.record.reason or ""))
    for skipped in collection.skipped[:ROWS_SHOWN]:
        table.add_row(escape(skipped.name), "[yellow]skipped[/]", "", "", escape(skipped.reason))
    console.print(table, highlight=False)
    console.print(
        f"{len(collection.usable)} used, {len(rejected)} rejected, {len(collection.skipped)} skipped; "
        f"all of them with their reasons are in {listed_in}",
        highlight=False,
    )


def _print_plan(config: PretrainConfig, plan: TrainingPlan, console: Console) -> None:
    network = plan.architecture.network_class_name.rsplit(".", 1)[-1]
    spacing = " × ".join(f"{s:g}" for s in plan.target.spacing_mm)
    crop = " × ".join(str(n) for n in plan.crop_size)
    lines = [
        f"Training on {len(plan.training)} volumes, validating on {len(plan.validation)} held out, "
        f"{spacing} mm (z, y, x)",
        f"Crops of {crop} voxels, {' × '.join(str(n) for n in config.grid)} base crops and {config.random_crops} "
        f"random ones per volume, {config.batch_size} volumes per step and process",
        f"{network}, {plan.architecture.n_stages} stages of {', '.join(str(f) for f in plan.architecture.features)} "
        f"features; {plan.scheme}"
        + (f" to mean {plan.properties['mean']:.0f}, SD {plan.properties['std']:.0f} HU" if plan.properties else ""),
    ]
    if plan.groups:
        shares = np.bincount(plan.group_of, minlength=len(plan.groups)) * plan.group_weights
        lines.append(
            "Drawing "
            + ", ".join(
                f"{share:.0%} from {group} (weight {weight:g})"
                for group, weight, share in zip(plan.groups, plan.group_weights, shares / shares.sum(), strict=True)
            )
        )
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _weights(request: Request, config: PretrainConfig) -> WeightRows | None:
    """Return the weights to be planned with.

    Raises:
        RunError: If they come from a table that a continued run needs and that was not given again.
    """
    if config.weights is None:
        return None
    try:
        return read_weights(request.settings.get("weights", config.weights))
    except ValueError:
        if "weights" in request.settings:
            raise
        raise RunError(
            f"{request.out}: the run was interrupted before it had read its volumes; give --weights with the table "
            f"{config.weights} again"
        ) from None


def _check_folder(request: Request) -> None:
    out = request.out
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file; -o names the folder of the run")
    inside = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    if not request.resume and inside - _NOT_A_RUN:
        raise RunError(
            f"{out}: already holds {', '.join(sorted(inside - _NOT_A_RUN)[:3])}…; nothing is overwritten. "
            "Go on with that run by --continue, or name another folder with -o"
        )


def _effective_config(request: Request) -> PretrainConfig:
    """Return the settings of the run: given ones, or those of the run that is continued.

    Raises:
        RunError: If values are given that differ from the run's.
    """
    stored_file = request.out / "config.json"
    settings = dict(request.settings)
    if settings.get("weights") is not None:
        settings["weights"] = read_weights(settings["weights"]).label
    if not (request.resume and stored_file.exists()):
        return PretrainConfig(**settings)
    stored = PretrainConfig.load(stored_file)
    differing = differing_fields(stored, settings)
    if differing:
        raise RunError(
            f"{request.out}: the run to be continued has other settings:\n  "
            + "\n  ".join(differing)
            + "\nLeave them out to continue it, or start a new run with another -o"
        )
    return PretrainConfig(**{**vars(stored), **settings})


def _cache_root(request: Request) -> Path:
    return request.cache or request.out / "cache"


def _voxels(shape: Sequence[int]) -> int:
    z, y, x = shape
    return z * y * x
