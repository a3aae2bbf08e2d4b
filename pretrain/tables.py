"""What a run prints before it trains: the volumes, and the plan."""

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nnunetv2_voco.pretrain.collect import Collection
from nnunetv2_voco.pretrain.config import PretrainConfig
from nnunetv2_voco.pretrain.training_plan import TrainingPlan

ROWS_SHOWN = 60
"""Rows of the table of volumes that are printed; all are in volumes.json."""


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


def print_plan(config: PretrainConfig, plan: TrainingPlan, console: Console) -> None:
    """Say what will be trained, and on what."""
    network = plan.architecture.network_class_name.rsplit(".", 1)[-1]
    spacing = " × ".join(f"{s:g}" for s in plan.target.spacing_mm)
    crop = " × ".join(str(n) for n in plan.crop_size)
    lines = (
        []
        if not config.learns_from.unlabelled
        else [
            f"Training on {len(plan.training)} volumes, validating on {len(plan.validation)} held out, "
            f"{spacing} mm (z, y, x)",
            f"Crops of {crop} voxels, {' × '.join(str(n) for n in config.grid)} base crops and {config.random_crops} "
            f"random ones per volume, {config.batch_size} volumes per step and process",
        ]
    )
    if plan.labelled is not None:
        held_out = "for validation" if config.fold == "all" else "held out"
        patch = " × ".join(str(n) for n in plan.patch_size or ())
        lines += [
            f"Recipe {config.recipe}: {len(labelled.training)} labelled cases of {labelled.name}, "
            f"{len(labelled.validation)} {held_out} (fold {config.fold}), {sum(labelled.annotated) - 1} classes"
            for labelled in plan.labelled.sets
        ]
        lines.append(
            f"{len(plan.labelled.class_names)} classes in all; {config.labelled_batch_size} patches of {patch} voxels "
            "per step and process"
        )
    lines.append(
        f"{network}, {plan.architecture.n_stages} stages of {', '.join(str(f) for f in plan.architecture.features)} "
        f"features; {plan.scheme}"
        + (f" to mean {plan.properties['mean']:.0f}, SD {plan.properties['std']:.0f} HU" if plan.properties else "")
    )
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
