"""report.html of the demo: verdict, curves, Dice by label, pictures, what was loaded, what it took."""

from pathlib import Path

import numpy as np

from nnunetv2_voco.evaluation.demo.outcome import Outcome
from nnunetv2_voco.evaluation.demo.overlay import colour, overlay, read_array, richest_slice
from nnunetv2_voco.evaluation.demo.settings import DemoSettings
from nnunetv2_voco.evaluation.demo.story import Story
from nnunetv2_voco.evaluation.page import Cell, Drawing, Page, Picture
from nnunetv2_voco.evaluation.page_style import SERIES
from nnunetv2_voco.evaluation.svg import new_figure

COLOURS = {"VoCo": SERIES[0], "scratch": SERIES[1]}
MARKERS = {"VoCo": "o", "scratch": "s"}
KEY_COLUMNS = 3
ONE_SEED = "; this is one seed, and another may differ by more than the interval, which is that of the cases alone"


def verdict(outcome: Outcome, settings: DemoSettings) -> tuple[str, str]:
    """Say in one sentence what the numbers say, and in which tone of the page."""
    voco, scratch, gain = outcome.mean("VoCo"), outcome.mean("scratch"), outcome.difference
    numbers = (
        f"mean Dice {voco:.3f} from the pre-trained weights and {scratch:.3f} from scratch, difference "
        f"{gain.value:+.3f} (95 % interval over {settings.test} test cases {gain.low:+.3f} to {gain.high:+.3f})"
    )
    if not settings.is_meaningful:
        return f"A trial run with `--small`, whose figures mean nothing: {numbers}.", "bad"
    if gain.is_above_zero:
        reduction = (voco - scratch) / (1 - scratch)
        return f"Pre-training helped: {numbers}; the error is {reduction:.0%} smaller{ONE_SEED}.", "good"
    if gain.is_below_zero:
        return f"Pre-training hurt here: {numbers}{ONE_SEED}.", "bad"
    return f"No clear gain: {numbers}{ONE_SEED}.", ""


def write_report(story: Story, outcome: Outcome) -> Path:
    """Write the report into the demo's folder and return where."""
    settings = story.settings
    page = Page(
        "Does VoCo pre-training help?",
        lead=f"Torso phantoms: {settings.volumes} CTs without labels to pre-train on, {settings.labelled} labelled "
        f"ones to fine-tune on, {settings.test} to test on. The same nnU-Net is trained twice, with the same cases, "
        "schedule and seed: from the pre-trained weights, and from scratch. Labelled are levels of the spine, which "
        "look alike and differ by their place only.",
    )
    text, tone = verdict(outcome, settings)
    page.note(text, tone=tone)
    page.paragraph(
        "A demonstration on phantoms with a small network and one seed, not evidence about patients. Over six seeds "
        "of a like comparison the mean difference to two starts from scratch was +0.08, from −0.07 to +0.18, and these "
        "two parted by as much (docs/results.md). For your data there is `voco_benchmark`, with seeds, label fractions "
        "and controls."
    )
    page.heading("Learning curves")
    page.drawings([_curves(outcome)])
    page.heading("Dice by label")
    page.drawings([_organs(outcome)])
    page.table(["label", "VoCo", "scratch", "difference"], _rows(outcome), caption=_caption(outcome, settings))
    page.heading("A test case")
    pictures, shown = _pictures(story)
    page.pictures(pictures)
    page.drawings([_key(shown, outcome)])
    page.heading("What was loaded")
    page.table(
        ["part of the encoder", "parameters", "from the checkpoint"],
        [
            [stage, f"{entry['parameters']:,}", f"{entry['loaded'] / max(1, entry['parameters']):.0%}"]
            for stage, entry in outcome.transfer["stages"].items()
        ],
        caption=f"{outcome.transfer['share']:.0%} of the encoder's parameters come from the checkpoint; the decoder "
        "starts as nnU-Net initialises it, its segmentation layers with a bias towards background in both trainings",
    )
    page.heading("What pre-training learned")
    known = outcome.pretraining
    page.paragraph(
        f"For {known['accuracy']:.0%} of {known['crops']} random crops of phantoms that it had not seen, the "
        "pre-trained encoder finds the place they come from among the crops of a grid; untrained it finds "
        f"{known['untrained_accuracy']:.0%}, a blind guess {known['blind']:.0%}. Curves and pictures of that run are "
        "in `pretrained/`."
    )
    page.heading("The commands")
    page.code(story.script())
    page.heading("What it took")
    seconds = story.seconds()
    page.table(
        ["step", "seconds"],
        [*([title, f"{value:.0f}"] for title, value in seconds.items()), ["all", f"{sum(seconds.values()):.0f}"]],
        caption="On this machine, by the clock",
    )
    page.paragraph(
        f"Reduced for a CPU: {settings.spacing_mm:g} mm phantoms, a network of "
        f"{', '.join(map(str, settings.features))} features, patches of "
        f"{' × '.join(map(str, settings.patch_size))} voxels, {settings.epochs} epochs of "
        f"{settings.iterations_per_epoch} steps with AdamW from {settings.initial_lr:g}. What the "
        "difference becomes with other tasks, rates and lengths: docs/results.md. Neither training mirrors."
    )
    file = story.out / "report.html"
    page.write(file)
    return file


def _curves(outcome: Outcome) -> Drawing:
    figure, axes = new_figure(4.6, 3.0)
    said = []
    for start, curve in outcome.curves.items():
        x = np.arange(1, len(curve) + 1)
        axes[0, 0].plot(x, curve, label=start, color=COLOURS[start], marker=MARKERS[start], markersize=4)
        said.append(f"{start} ends at {curve[-1]:.2f}")
    axes[0, 0].xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].set(xlabel="epoch", ylabel="pseudo Dice", ylim=(0, None))
    axes[0, 0].legend(loc="upper left")
    return Drawing(
        figure,
        alt=f"Pseudo Dice by epoch: {'; '.join(said)}",
        caption="nnU-Net's running validation: mean Dice over organs, on random patches of the validation cases",
    )


def _organs(outcome: Outcome) -> Drawing:
    figure, axes = new_figure(4.6, 0.9 + 0.28 * len(outcome.organs))
    middle = np.arange(len(outcome.organs))
    for offset, start in zip((-0.19, 0.19), ("VoCo", "scratch"), strict=True):
        values = [outcome.mean(start, [organ]) for organ in outcome.organs]
        axes[0, 0].barh(middle + offset, values, height=0.36, color=COLOURS[start], label=start)
    axes[0, 0].set_yticks(middle, [_name(organ, outcome) for organ in outcome.organs])
    axes[0, 0].invert_yaxis()
    axes[0, 0].set(xlabel="mean Dice", xlim=(0, 1))
    axes[0, 0].legend(loc="lower right")
    said = "; ".join(
        f"{organ} {outcome.mean('VoCo', [organ]):.2f} against {outcome.mean('scratch', [organ]):.2f}"
        for organ in outcome.organs
    )
    return Drawing(figure, alt=f"Dice by label, VoCo against scratch: {said}", caption="≈ has look-alikes elsewhere")


def _rows(outcome: Outcome) -> list[list[object]]:
    rows: list[list[object]] = []
    alike = [organ for pair in outcome.look_alikes for organ in pair]
    groups = [(_name(organ, outcome), [organ]) for organ in outcome.organs]
    others = [organ for organ in outcome.organs if organ not in alike]
    groups += [("look-alikes", alike), ("all others", others)] if others else []
    for name, organs in [*groups, ("all", list(outcome.organs))]:
        voco, scratch = outcome.mean("VoCo", organs), outcome.mean("scratch", organs)
        gain = round(voco - scratch, 3)
        tone = "good" if gain > 0 else "bad" if gain < 0 else ""
        rows.append([name, f"{voco:.3f}", f"{scratch:.3f}", Cell(f"{gain + 0:+.3f}", tone=tone)])
    return rows


def _caption(outcome: Outcome, settings: DemoSettings) -> str:
    groups = "; ".join(", ".join(group) for group in outcome.look_alikes).replace("_", " ")
    return (
        f"nnU-Net's Dice, mean over {settings.test} test cases. Look-alikes (≈) have the same shape, size and "
        f"brightness and differ by their place only: {groups}"
    )


def _name(organ: str, outcome: Outcome) -> str:
    return organ.replace("_", " ") + " ≈" * any(organ in pair for pair in outcome.look_alikes)


def _pictures(story: Story) -> tuple[list[Picture], list[int]]:
    """Show one coronal slice of the first test case: the CT, the truth, both predictions; and say which labels."""
    truth_file = sorted((story.raw / "labelsTs").glob("*.nii.gz"))[0]
    image = read_array(story.raw / "imagesTs" / truth_file.name.replace(".nii.gz", "_0000.nii.gz"))
    truth = read_array(truth_file)
    y = richest_slice(truth)
    shown = {"CT": None, "truth": truth}
    for start in ("VoCo", "scratch"):
        shown[start] = read_array(story.predictions(start) / truth_file.name)
    case = truth_file.name.removesuffix(".nii.gz")
    found = {int(label) for labels in shown.values() if labels is not None for label in np.unique(labels[:, y])}
    pictures = [
        Picture(
            overlay(image, labels, y=y, spacing_mm=(1.0, 1.0)),
            alt=f"Coronal slice of {case}: {name}" + ("" if labels is None else ", organs in colour"),
            caption=name,
        )
        for name, labels in shown.items()
    ]
    return pictures, sorted(found - {0})


def _key(labels: list[int], outcome: Outcome) -> Drawing:
    """Say which colour is which organ; the phantoms' labels are numbered in the order of their names."""
    from matplotlib.patches import Patch

    names = [_name(outcome.organs[label - 1], outcome) for label in labels]
    figure, axes = new_figure(4.6, 0.2 + 0.22 * -(-len(labels) // KEY_COLUMNS))
    axes[0, 0].set_axis_off()
    patches = [Patch(color=colour(label), label=name) for label, name in zip(labels, names, strict=True)]
    axes[0, 0].legend(handles=patches, ncol=KEY_COLUMNS, loc="center", frameon=False)
    return Drawing(figure, alt=f"Colours of the organs: {', '.join(names)}", caption="Seen from the front, head up")
