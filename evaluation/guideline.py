"""Which size, recipe and schedule suit a dataset: rules, each with its reason.

The authors' guideline gives directions: more cases, more diverse data and harder tasks with more classes want larger
models, and larger is not always better (Wu et al., IEEE TPAMI 2025). It gives no thresholds; those here are this
package's own, in one place to be changed.
"""

from dataclasses import dataclass

MANY_CASES, VERY_MANY_CASES, FEW_CASES = 100, 500, 30
MANY_CLASSES, VERY_MANY_CLASSES = 10, 40
DIVERSE = 4.0
"""Ratio of the 90th to the 10th percentile of the volumes' physical sizes above which data count as diverse."""

SMALL_VOXELS = 2_000_000
"""Median volume, in voxels, below which a narrow network sees everything at once."""

POOL_FOR_HUGE = 1000
"""Volumes without which the largest size is not worth pre-training; the authors' saw 160,000."""

LABELS_THAT_TEACH = 20
"""Labelled cases from which supervision in pre-training is recommended."""

PAPER_STEPS, PAPER_VOLUMES = 250_000, 10_000
STEPS_EXPONENT = 0.75
"""The paper's 250,000 steps for 10,000 volumes and 2,000,000 for 160,000: eight times the steps for 16 times the
volumes, log 8 / log 16."""

LEAST_STEPS = 5_000
SIZES = "SBLH"
RESIDUAL = {"S": "resenc-m", "B": "resenc-m", "L": "resenc-l", "H": "resenc-xl"}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the rules look at.

    Attributes:
        cases: Labelled cases.
        classes: Foreground classes.
        voxels: Median number of voxels of a case as stored.
        spacing_mm: Median spacing, (z, y, x).
        size_ratio: 90th to 10th percentile of the cases' physical volumes.
        is_ct: Whether every channel is CT.
        unlabelled: Further volumes without labels.
    """

    cases: int
    classes: int
    voxels: int
    spacing_mm: tuple[float, float, float]
    size_ratio: float
    is_ct: bool
    unlabelled: int = 0


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A recommendation and the rules that led to it.

    Attributes:
        value: What is recommended.
        rules: Names and reasons of the rules that fired, in order.
    """

    value: str
    rules: tuple[str, ...]


def recommend_size(facts: Facts) -> Advice:
    """Count what speaks for a larger model, then apply the caps."""
    reasons = []
    for name, value, thresholds, what in (
        ("many-cases", facts.cases, (MANY_CASES, VERY_MANY_CASES), "cases"),
        ("many-classes", facts.classes, (MANY_CLASSES, VERY_MANY_CLASSES), "classes"),
        ("diverse", facts.size_ratio, (DIVERSE,), "between large and small volumes"),
    ):
        points = sum(value >= threshold for threshold in thresholds)
        if points:
            shown = f"a factor of {value:.1f}" if name == "diverse" else f"{value:,}"
            reasons.append((points, f"{name} (+{points}): {shown} {what}, from {thresholds[points - 1]:g} on"))
    points = sum(points for points, _ in reasons)
    rules = [text for _, text in reasons] or ["default: nothing speaks for more than nnU-Net's own size"]
    size = "B" if points <= 1 else "L" if points <= 3 else "H"
    if facts.cases < FEW_CASES and size in "LH":
        rules.append(f"few-cases (at most B): {facts.cases} cases, fewer than {FEW_CASES}; larger is not always better")
        size = "B"
    pool = facts.cases + facts.unlabelled
    if size == "H" and pool < POOL_FOR_HUGE:
        rules.append(f"small-pool (at most L): {pool:,} volumes to pre-train on, fewer than {POOL_FOR_HUGE:,}")
        size = "L"
    if size == "B" and points == 0 and facts.classes <= 2 and facts.voxels < SMALL_VOXELS:
        rules.append(f"small-volumes (S): {facts.classes} classes in volumes of {facts.voxels / 1e6:.2g} M voxels")
        size = "S"
    return Advice(value=size, rules=tuple(rules))


def recommend_recipe(facts: Facts) -> Advice:
    """Weigh labelled against unlabelled volumes."""
    if facts.cases < LABELS_THAT_TEACH:
        value, rule = "ssl", f"few-labels: {facts.cases} labelled cases, fewer than {LABELS_THAT_TEACH}, teach little"
    elif facts.unlabelled >= facts.cases:
        value, rule = "omni", "both: labels to learn from and at least as many volumes without; the paper's best models"
    elif facts.unlabelled > 0:
        value, rule = "semi", "mostly-labelled: fewer volumes without labels than with; they are pseudo-labelled"
    else:
        value, rule = (
            "ssl",
            (
                "no-pool: no further volumes are known (--unlabelled). The dataset's own images are a small pool; any "
                "CTs of the region, or published weights, are worth more"
            ),
        )
    rules = [rule]
    if not facts.is_ct:
        rules.append("not-CT: VoCo's evidence is for CT; compare with the twin from scratch before trusting it")
    return Advice(value=value, rules=tuple(rules))


def recommend_steps(facts: Facts) -> Advice:
    """Take the paper's schedule to the number of volumes at hand."""
    pool = max(1, facts.cases + facts.unlabelled)
    wanted = PAPER_STEPS * (pool / PAPER_VOLUMES) ** STEPS_EXPONENT
    steps = max(LEAST_STEPS, round(wanted, -3))
    rules = [
        f"paper-schedule: {PAPER_STEPS:,} steps for {PAPER_VOLUMES:,} volumes, growing with their number to the power "
        f"{STEPS_EXPONENT:g}, gives {wanted:,.0f} for {pool:,}; the paper's batches are of 16 volumes"
    ]
    if wanted < LEAST_STEPS:
        rules.append(f"least-steps: not below {LEAST_STEPS:,}")
    return Advice(value=f"{steps:.0f}", rules=tuple(rules))


def recommend_schedule(facts: Facts) -> Advice:
    """Choose the fine-tuning trainer."""
    rules = ["stock-schedule: best for VoCo of the schedules compared in OpenMind (arXiv 2412.17041)"]
    if facts.cases < FEW_CASES:
        rules.append(
            f"few-cases: with {facts.cases} cases a gain, if any, shows early; try 150 epochs and the twin before 1000"
        )
        return Advice(value="nnUNetTrainerVoCo_150ep", rules=tuple(rules))
    return Advice(value="nnUNetTrainerVoCo", rules=tuple(rules))
