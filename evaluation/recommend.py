"""`voco_recommend`: size, recipe and schedule for a dataset of nnU-Net, with the rules that led there."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where needed, so that --help is instant
    from nnunetv2_voco.evaluation.guideline import Advice, Facts


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="voco_recommend",
        description="Read a dataset's fingerprint (nnUNetv2_extract_fingerprint or nnUNetv2_plan_and_preprocess makes "
        "it) and recommend model size, pre-training recipe and schedules by the published guideline, naming each rule.",
    )
    parser.add_argument("-d", dest="dataset", required=True, help="data set, name or number")
    parser.add_argument(
        "--unlabelled", type=int, default=0, metavar="N", help="CT volumes without labels you can add (default: none)"
    )
    args = parser.parse_args(arguments)
    if args.unlabelled < 0:
        parser.error(f"--unlabelled {args.unlabelled}: must not be negative")

    from nnunetv2_voco.target import dataset_folder

    try:
        facts = read_facts(dataset_folder(args.dataset), unlabelled=args.unlabelled)
    except (ValueError, OSError) as error:
        sys.exit(f"voco_recommend: {error}")
    print("\n".join(recommendation(facts, args.dataset)))


def read_facts(folder: Path, *, unlabelled: int = 0) -> "Facts":
    """Read a dataset's description and fingerprint.

    Args:
        folder: Its pre-processed folder.
        unlabelled: Volumes without labels at hand.

    Raises:
        FileNotFoundError: If there is no fingerprint.
        ValueError: If it holds no cases, or is no fingerprint.
    """
    import numpy as np

    from nnunetv2_voco.evaluation.guideline import Facts

    file = folder / "dataset_fingerprint.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; run nnUNetv2_extract_fingerprint -d {folder.name} first")
    fingerprint = json.loads(file.read_text(encoding="utf-8"))
    description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    if not fingerprint.get("spacings") or not fingerprint.get("shapes_after_crop"):
        raise ValueError(f"{file}: holds no spacings or shapes_after_crop; extract the fingerprint again")
    spacings = np.array(fingerprint["spacings"], float)
    shapes = np.array(fingerprint["shapes_after_crop"], float)
    physical = (spacings * shapes).prod(1)
    large, small = np.quantile(physical, [0.9, 0.1])
    labels = [name for name, value in description["labels"].items() if name != "ignore" and value not in (0, [0])]
    z, y, x = (float(value) for value in np.median(spacings, axis=0))
    return Facts(
        cases=len(spacings),
        classes=len(labels),
        voxels=int(np.median(shapes.prod(1))),
        spacing_mm=(z, y, x),
        size_ratio=float(large / small),
        is_ct=all(str(name).lower() == "ct" for name in description["channel_names"].values()),
        unlabelled=unlabelled,
    )


def recommendation(facts: "Facts", dataset: str) -> Iterator[str]:
    """Yield what was read, what is recommended and why, and the commands."""
    from nnunetv2_voco.evaluation import guideline

    spacing = " × ".join(f"{value:.3g}" for value in facts.spacing_mm)
    yield (
        f"{dataset}: {facts.cases} labelled cases, {facts.unlabelled} volumes without labels, {facts.classes} classes, "
        f"median {facts.voxels / 1e6:.2g} M voxels at {spacing} mm (z, y, x), sizes differ by a factor of "
        f"{facts.size_ratio:.1f}, {'CT' if facts.is_ct else 'not all channels are CT'}"
    )
    size, recipe = guideline.recommend_size(facts), guideline.recommend_recipe(facts)
    steps, trainer = guideline.recommend_steps(facts), guideline.recommend_schedule(facts)
    yield from _explained(
        "size", size, f" (plain network; of nnU-Net's residual ones {guideline.RESIDUAL[size.value]})"
    )
    yield from _explained("recipe", recipe)
    yield from _explained("pre-training steps", steps)
    yield from _explained("fine-tuning", trainer, f" and its twin {_twin(trainer.value)}")
    yield "thresholds are this package's; the published guideline gives directions only (evaluation/guideline.py)"
    yield ""
    scale = "" if size.value == "B" else f" --scale {size.value}"
    volumes = "" if recipe.value == "supervised" else "CTS "
    labels, decoder = "", ""
    if recipe.value != "ssl":
        labels, decoder = f" --recipe {recipe.value} --labelled {dataset}", " --decoder"
    yield f"  voco_pretrain {volumes}-o OUT -d {dataset}{scale} --steps {steps.value}{labels}"
    yield f"  voco_plan -d {dataset} -pc OUT/voco_encoder.pth -n mine{scale}{decoder}"
    for name in (trainer.value, _twin(trainer.value)):
        yield f"  nnUNetv2_train {dataset} 3d_fullres 0 -tr {name} -p nnUNetPlans_VoCo_mine"


def _explained(title: str, advice: "Advice", addition: str = "") -> Iterator[str]:
    yield f"\n{title}: {advice.value}{addition}"
    for rule in advice.rules:
        yield f"  {rule}"


def _twin(trainer: str) -> str:
    return trainer.replace("nnUNetTrainerVoCo", "nnUNetTrainerVoCoScratch")
