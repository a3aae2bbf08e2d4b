"""The demo's steps: each a few public commands, done once, and done again from where it was after an interruption."""

import json
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_voco.atomic import remove_leftovers, write_json
from nnunetv2_voco.evaluation.demo.commands import Command, CommandFailed, command, exports, folded
from nnunetv2_voco.evaluation.demo.lock import locked
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
        commands: In their order, as a user types them who is never interrupted.
        goes_on: What to run in their place where an interruption left something to go on with.
        before: What to do before them, to start again after an interruption.
        after: What to do after them, beside commands.
        remark: What `after` did, in words.
        environment: Variables for these commands, beside the story's.
    """

    name: str
    title: str
    commands: tuple[Command, ...]
    goes_on: tuple[Command, ...] = ()
    before: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None
    remark: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def typed(self, each: Command) -> str:
        """Return one of the commands with its variables, folded where it is long."""
        return folded("".join(f"{name}={value} " for name, value in self.environment.items()) + str(each))


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
        """nnU-Net's folders, inside the demo's; nothing compiled, and few helpers, each of which loads torch anew."""
        folders = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        return {name: str(self.out / name) for name in folders} | {
            "nnUNet_compile": "false",
            "nnUNet_def_n_proc": "1",
        }

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return f"Dataset{self.settings.dataset:03d}_{self.settings.name}"

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
        """Yield the steps, with paths below the folder; how they go on depends on what an interruption left."""
        settings, number = self.settings, str(self.settings.dataset)
        volumes, raw, preprocessed = self.out / "ct", self._below(self.raw), self._below(self.preprocessed)
        yield Step(
            name="phantoms",
            title="CTs without labels, and a few with",
            commands=(
                command("voco_phantoms", "ct", "-n", settings.volumes, "--spacing", settings.spacing_mm),
                command(
                    "voco_phantoms", "nnUNet_raw", "--dataset", number,
                    "-n", settings.labelled + settings.validation, "--test", settings.test,
                    "--spacing", settings.spacing_mm, "--labels", settings.labels,
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
            after=lambda: write_small_plans(
                self.preprocessed,
                features=settings.features, patch_size=settings.patch_size, batch_size=settings.batch_size,
            ),
            remark=f"{SMALL_PLANS}.json: nnU-Net's plans with a network of {', '.join(map(str, settings.features))} "
            f"features and patches of {' × '.join(map(str, settings.patch_size))} voxels, for a CPU",
        )  # fmt: skip
        pretrain = command(
            "voco_pretrain", "ct", "-o", "pretrained", "-d", number, "-p", SMALL_PLANS, "--device", "cpu",
            *settings.pretraining,
        )  # fmt: skip
        begun = (self.encoder.parent / "config.json").exists()
        yield Step(
            name="pretrain",
            title="Pre-training on the CTs, without labels",
            commands=(pretrain,),
            goes_on=(command(*pretrain.words, "--continue"),) if begun else (),
            after=self._require_all_steps,
        )
        yield Step(
            name="name_weights",
            title="The weights are named in a copy of the plans",
            commands=(
                command("voco_plan", "-d", number, "-p", SMALL_PLANS, "-pc", self._below(self.encoder), "-n", "demo"),
            ),
            before=lambda: (self.preprocessed / f"{VOCO_PLANS}.json").unlink(missing_ok=True),
            after=lambda: write_experiment(self.preprocessed, settings),
            remark=f"both trainings: {settings.labelled} labelled cases, {settings.epochs} epochs of "
            f"{settings.iterations_per_epoch} steps, the same seed; {TWIN_PLANS}.json starts from random weights",
        )  # fmt: skip
        for start, plans in PLANS.items():
            train = command(
                "nnUNetv2_train", number, CONFIGURATION, "0", "-tr", settings.trainer, "-p", plans, "-device", "cpu"
            )
            saved = any(self.model(plans).glob("checkpoint_*.pth"))
            yield Step(
                name=f"train_{start}",
                title=f"Fine-tuning with {settings.labelled} labelled cases, from "
                + ("the pre-trained weights" if start == "VoCo" else "scratch: the twin"),
                commands=(train,),
                goes_on=(command(*train.words, "--c"),) if saved else (),
                environment={"nnUNet_n_proc_DA": "0"},  # batches drawn in the training's own process repeat
            )
        yield Step(
            name="evaluate",
            title=f"Prediction and evaluation of {settings.test} test cases",
            commands=tuple(
                each
                for start, plans in PLANS.items()
                for each in (
                    command(
                        "nnUNetv2_predict", "-i", raw / "imagesTs", "-o", f"predictions_{start}", "-d", number,
                        "-c", CONFIGURATION, "-f", "0", "-tr", settings.trainer, "-p", plans, "-device", "cpu",
                        "-npp", "1", "-nps", "1",
                    ),
                    command(
                        "nnUNetv2_evaluate_folder", raw / "labelsTs", f"predictions_{start}",
                        "-djfile", raw / "dataset.json", "-pfile", preprocessed / f"{plans}.json", "-np", "1",
                    ),
                )
            ),
        )  # fmt: skip

    def run(self, say: Callable[[str], None]) -> None:
        """Do what is not done yet, and say each command before it runs.

        Raises:
            CommandFailed: If a command fails; what was done stays.
            ValueError: If another demo, or a command of one that was killed, is at work in the folder.
        """
        with locked(self.out / "done" / "lock") as descriptor:
            remove_leftovers(self.out)
            logs = self.out / "logs"
            logs.mkdir(exist_ok=True)
            for line in self.preamble():
                say(f"$ {line}")
            for number, step in enumerate(self.steps(), start=1):
                done = self.out / "done" / f"{step.name}.json"
                commands = step.commands if done.exists() else step.goes_on or step.commands
                say(f"\n{number}. {step.title}")
                for each in commands:
                    say(f"$ {step.typed(each)}")
                if step.remark:
                    say(f"  {step.remark}")
                if done.exists():
                    say("  done before")
                    continue
                log = logs / f"{step.name}.log"
                say(f"  what it prints: {log}")
                started = time.monotonic()
                step.before()
                for each in commands:
                    each.run(
                        log, {**self.environment, **step.environment}, folder=self.out,
                        say=lambda line: say(f"  … {line}"), keep_open=descriptor,
                    )  # fmt: skip
                step.after()
                seconds = time.monotonic() - started
                write_json(done, {"seconds": seconds})
                say(f"  {seconds:.0f} s")

    def preamble(self) -> list[str]:
        """Return what a user types first: into the folder, and the variables of nnU-Net."""
        shown = {name: value.replace(str(self.out), "$PWD", 1) for name, value in self.environment.items()}
        return [f"cd {shlex.quote(self.out.name)}", *exports(shown)]

    def script(self) -> str:
        """Return all commands as a user types them."""
        lines = self.preamble()
        for step in self.steps():
            lines += ["", f"# {step.title}", *(step.typed(each) for each in step.commands)]
            lines += [f"# {step.remark}"] * bool(step.remark)
        return "\n".join(lines)

    def _require_all_steps(self) -> None:
        """Raise if a signal ended the pre-training: it then saves its state and ends without an error."""
        folder = self.encoder.parent
        wanted = json.loads((folder / "config.json").read_text(encoding="utf-8"))["steps"]
        *_, last = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
        if json.loads(last)["step"] < wanted:
            raise CommandFailed(f"voco_pretrain was ended before its {wanted} steps; the same voco_demo goes on")

    def _below(self, path: Path) -> Path:
        return path.relative_to(self.out)

    def seconds(self) -> dict[str, float]:
        """Return how long each finished step took, by its title; an interrupted one from its last start."""
        return {
            step.title: json.loads((self.out / "done" / f"{step.name}.json").read_text(encoding="utf-8"))["seconds"]
            for step in self.steps()
        }
