"""The demo's steps: each a few public commands, done once, and done again from where it was after an interruption."""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_voco.atomic import write_json
from nnunetv2_voco.evaluation.demo.commands import Command, command, exports
from nnunetv2_voco.evaluation.demo.settings import DemoSettings
from nnunetv2_voco.evaluation.demo.small_plans import (
    CONFIGURATION,
    SMALL_PLANS,
    TWIN_PLANS,
    VOCO_PLANS,
    write_experiment,
    write_small_plans,
)

PLANS = {"VoCo": VOCO_PLANS, "scratch": TWIN_PLANS}
"""The two trainings: how they are called, and their plans."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A part of the story.

    Attributes:
        name: Short, the name of its log.
        title: What happens, for a person.
        commands: In their order.
        before: What to do before them, to start again after an interruption.
        after: What to do after them, beside commands.
        remark: What `after` did, in words.
        environment: Variables for these commands, beside the story's.
    """

    name: str
    title: str
    commands: tuple[Command, ...]
    before: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None
    remark: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Story:
    """The demo in one folder.

    Attributes:
        out: The folder, absolute.
        settings: Its sizes.
    """

    out: Path
    settings: DemoSettings = field(default_factory=DemoSettings)

    @property
    def environment(self) -> dict[str, str]:
        """nnU-Net's folders, inside the demo's, and nothing compiled."""
        folders = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        return {name: str(self.out / name) for name in folders} | {"nnUNet_compile": "false"}

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return f"Dataset{self.settings.dataset:03d}_Phantoms"

    @property
    def raw(self) -> Path:
        """The raw data set."""
        return self.out / "nnUNet_raw" / self.dataset

    @property
    def preprocessed(self) -> Path:
        """The pre-processed data set."""
        return self.out / "nnUNet_preprocessed" / self.dataset

    @property
    def encoder(self) -> Path:
        """The pre-trained encoder."""
        return self.out / "pretrained" / "voco_encoder.pth"

    def model(self, plans: str) -> Path:
        """Where nnU-Net writes the training with these plans."""
        name = f"{self.settings.trainer}__{plans}__{CONFIGURATION}"
        return self.out / "nnUNet_results" / self.dataset / name / "fold_0"

    def predictions(self, start: str) -> Path:
        """Predicted test cases of a training, a key of `PLANS`."""
        return self.out / f"predictions_{start}"

    def steps(self) -> Iterator[Step]:
        """Yield the steps; what they hold depends on what was done before an interruption."""
        settings, number = self.settings, str(self.settings.dataset)
        volumes, pretrained = self.out / "ct", self.out / "pretrained"
        yield Step(
            name="phantoms",
            title="CTs without labels, and a few with",
            commands=(
                command("voco_phantoms", volumes, "-n", settings.volumes, "--spacing", settings.spacing_mm),
                command(
                    "voco_phantoms", self.out / "nnUNet_raw", "--dataset", number,
                    "-n", settings.labelled + settings.validation, "--test", settings.test,
                    "--spacing", settings.spacing_mm,
                ),
            ),
            before=lambda: [shutil.rmtree(folder, ignore_errors=True) for folder in (volumes, self.raw)] and None,
        )  # fmt: skip
        yield Step(
            name="plan",
            title="nnU-Net plans and pre-processes the labelled cases",
            commands=(
                command(
                    "nnUNetv2_plan_and_preprocess", "-d", number, "-c", CONFIGURATION, "-np", "2", "-npfp", "2",
                    "--verify_dataset_integrity",
                ),
            ),
            before=lambda: shutil.rmtree(self.preprocessed, ignore_errors=True),
            after=lambda: write_small_plans(self.preprocessed, settings),
            remark=f"{SMALL_PLANS}.json: nnU-Net's plans with a network of {', '.join(map(str, settings.features))} "
            f"features and patches of {' × '.join(map(str, settings.patch_size))} voxels, for a CPU",
        )  # fmt: skip
        continued = ("--continue",) if (pretrained / "config.json").exists() else ()
        yield Step(
            name="pretrain",
            title="Pre-training on the CTs, without labels",
            commands=(
                command(
                    "voco_pretrain", volumes, "-o", pretrained, "-d", number, "-p", SMALL_PLANS, "--device", "cpu",
                    *settings.pretraining, *continued,
                ),
            ),
        )  # fmt: skip
        yield Step(
            name="name_weights",
            title="The weights are named in a copy of the plans",
            commands=(
                command("voco_plan", "-d", number, "-p", SMALL_PLANS, "-pc", self.encoder, "-n", "demo"),
            ),
            before=lambda: (self.preprocessed / f"{VOCO_PLANS}.json").unlink(missing_ok=True),
            after=lambda: write_experiment(self.preprocessed, settings),
            remark=f"both trainings: {settings.labelled} labelled cases, {settings.epochs} epochs of "
            f"{settings.iterations_per_epoch} steps, the same seed; {TWIN_PLANS}.json starts from random weights",
        )  # fmt: skip
        for start, plans in PLANS.items():
            saved = self.model(plans).glob("checkpoint_*.pth")
            yield Step(
                name=f"train_{start}",
                title=f"Fine-tuning with {settings.labelled} labelled cases, from "
                + ("the pre-trained weights" if start == "VoCo" else "scratch: the twin"),
                commands=(
                    command(
                        "nnUNetv2_train", number, CONFIGURATION, "0", "-tr", settings.trainer, "-p", plans,
                        "-device", "cpu", *(("--c",) if any(saved) else ()),
                    ),
                ),
                environment={"nnUNet_n_proc_DA": "0"},  # batches drawn in the training's own process repeat
            )  # fmt: skip
        yield Step(
            name="evaluate",
            title=f"Prediction and evaluation of {settings.test} test cases",
            commands=tuple(
                each
                for start, plans in PLANS.items()
                for each in (
                    command(
                        "nnUNetv2_predict", "-i", self.raw / "imagesTs", "-o", self.predictions(start), "-d", number,
                        "-c", CONFIGURATION, "-f", "0", "-tr", settings.trainer, "-p", plans, "-device", "cpu",
                        "-npp", "1", "-nps", "1",
                    ),
                    command(
                        "nnUNetv2_evaluate_folder", self.raw / "labelsTs", self.predictions(start),
                        "-djfile", self.raw / "dataset.json", "-pfile", self.preprocessed / f"{plans}.json", "-np", "1",
                    ),
                )
            ),
        )  # fmt: skip

    def run(self, say: Callable[[str], None]) -> None:
        """Do what is not done yet, and say each command before it runs.

        Raises:
            CommandFailed: If a command fails; what was done stays.
        """
        logs = self.out / "logs"
        logs.mkdir(exist_ok=True)
        for line in exports(self.environment):
            say(f"$ {line}")
        for number, step in enumerate(self.steps(), start=1):
            say(f"\n{number}. {step.title}")
            variables = "".join(f"{name}={value} " for name, value in step.environment.items())
            for each in step.commands:
                say(f"$ {variables}{each}")
            done = self.out / "done" / f"{step.name}.json"
            if done.exists():
                say("  done before")
                continue
            started = time.monotonic()
            step.before()
            for each in step.commands:
                each.run(logs / f"{step.name}.log", {**self.environment, **step.environment}, folder=self.out)
            step.after()
            if step.remark:
                say(f"  {step.remark}")
            seconds = time.monotonic() - started
            done.parent.mkdir(exist_ok=True)
            write_json(done, {"seconds": seconds})
            say(f"  {seconds:.0f} s")

    def seconds(self) -> dict[str, float]:
        """Return how long each finished step took, by its title; an interrupted one from its last start."""
        return {
            step.title: json.loads((self.out / "done" / f"{step.name}.json").read_text(encoding="utf-8"))["seconds"]
            for step in self.steps()
        }
