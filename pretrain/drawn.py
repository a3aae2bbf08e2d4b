"""What a weighted run has drawn, by group: for the console and drawn.json."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nnunetv2_voco.atomic import write_json
from nnunetv2_voco.pretrain.training_plan import TrainingPlan
from nnunetv2_voco.pretrain.volume_order import VolumeOrder


@dataclass(frozen=True, kw_only=True)
class DrawnGroup:
    """One group of training volumes.

    Attributes:
        group: Its name.
        weight: How often one of its volumes is drawn, relative to one of weight 1.
        volumes: Their number.
        drawn: Samples drawn from them.
        share: Of all samples.
        volumes_drawn: Volumes of which at least one sample was drawn.
    """

    group: str
    weight: float
    volumes: int
    drawn: int
    share: float
    volumes_drawn: int


def drawn_by_group(plan: TrainingPlan, *, seed: int, samples: int) -> list[DrawnGroup]:
    """Count what the first `samples` samples of a run were drawn from; a function of its arguments alone."""
    counts = VolumeOrder(len(plan.training), seed, plan.volume_weights).counts(samples)
    group_of = np.asarray(plan.group_of)
    return [
        DrawnGroup(
            group=group,
            weight=weight,
            volumes=int(np.sum(group_of == i)),
            drawn=int(counts[group_of == i].sum()),
            share=round(float(counts[group_of == i].sum()) / samples, 6),
            volumes_drawn=int(np.sum(counts[group_of == i] > 0)),
        )
        for i, (group, weight) in enumerate(zip(plan.groups, plan.group_weights, strict=True))
    ]


def report_drawn(plan: TrainingPlan, *, seed: int, samples: int, out: Path, console: Console) -> None:
    """Print what was drawn and write it to `drawn.json`; nothing for a run without weights."""
    if not plan.groups:
        return
    groups = drawn_by_group(plan, seed=seed, samples=samples)
    write_json(out / "drawn.json", {"samples": samples, "groups": [asdict(group) for group in groups]})
    table = Table(box=None, pad_edge=False, header_style="bold", title="Samples drawn", title_justify="left")
    table.add_column("group", overflow="fold")
    for title in ("weight", "training volumes", "of these drawn", "samples", "share"):
        table.add_column(title, justify="right", no_wrap=True)
    for group in groups:
        table.add_row(
            escape(group.group), f"{group.weight:g}", str(group.volumes), str(group.volumes_drawn), str(group.drawn),
            f"{group.share:.1%}",
        )  # fmt: skip
    console.print(table, highlight=False)
