"""One run of a benchmark, where its files lie, and the list of all of them that every later step reads."""

import json
import os
import shlex
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from nnunetv2_voco.atomic import write_json

COPY = "benchmark.yaml"
"""Copy of the benchmark's file as it was run."""

MANIFEST = "runs.json"
"""File in the benchmark's folder that lists its runs."""

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
"""What nnU-Net's --c goes on from, in this order."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training with its validation.

    Attributes:
        id: Unique name; its end is a digest of all that determines the result.
        dataset: Name of the data set.
        configuration: nnU-Net's configuration.
        trainer: nnU-Net's trainer class.
        plans: Name of the plans, made for this run alone.
        initialisation: Name of the weights it starts from, "scratch" for the twin.
        schedule: "stock" or the suffix of the trainer.
        labels: Amount of labelled cases as asked for.
        training_cases: Their number.
        validation_cases: Number of validation cases.
        fold: Fold of the cross-validation.
        seed: Seed of subset and training.
        nsd_tolerance_mm: Tolerance of the normalised surface Dice.
        about: What the data set is.
        initial_draw: Number of the draw of initial values of a control from scratch; 0 for all other runs.
    """

    id: str
    dataset: str
    configuration: str
    trainer: str
    plans: str
    initialisation: str
    schedule: str
    labels: str
    training_cases: int
    validation_cases: int
    fold: int
    seed: int
    nsd_tolerance_mm: float
    about: str = ""
    initial_draw: int = 0

    def folder(self, out: Path) -> Path:
        """Where nnU-Net writes this run."""
        model = f"{self.trainer}__{self.plans}__{self.configuration}"
        return results_folder(out) / self.dataset / model / f"fold_{self.fold}"

    def summary(self, out: Path) -> Path:
        """nnU-Net's evaluation, the last thing that it writes."""
        return self.folder(out) / "validation" / "summary.json"

    def surfaces(self, out: Path) -> Path:
        """The surface distances, which are computed from it and its predictions."""
        return self.folder(out) / "validation" / "surfaces.json"

    def curve(self, out: Path) -> Path:
        """What nnU-Net logged in each epoch."""
        return self.folder(out) / "curve.json"

    def log(self, out: Path) -> Path:
        """What the run prints."""
        return out / "logs" / f"{self.id}.txt"

    def is_finished(self, out: Path) -> bool:
        """Whether training and validation are complete."""
        return self.summary(out).is_file()

    def command(self, device: str) -> str:
        """The command of nnU-Net that does the same training, for a person to repeat."""
        words = ["nnUNetv2_train", self.dataset, self.configuration, str(self.fold)]
        return shlex.join([*words, "-tr", self.trainer, "-p", self.plans, "-device", device])


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How every run uses the machine.

    Attributes:
        device: "cuda", "cpu" or "mps".
        threads: Threads of one run on a CPU.
        workers: nnUNet_n_proc_DA; nnU-Net's own choice if None.
    """

    device: str
    threads: int
    workers: int | None

    def environment(self, out: Path) -> dict[str, str]:
        """Variables that a run sets before it imports torch and nnU-Net."""
        variables = {"nnUNet_results": str(results_folder(out)), "nnUNet_wandb_enabled": "0"}
        if self.device == "cpu":
            names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
            variables |= dict.fromkeys(names, str(self.threads)) | {"nnUNet_def_n_proc": "1"}
        if self.workers is not None:
            variables["nnUNet_n_proc_DA"] = str(self.workers)
        return variables


def can_measure_surfaces() -> bool:
    """Whether the library for HD95 and NSD is installed: pip install "nnunetv2_voco[benchmark]"."""
    return find_spec("monai") is not None


def results_folder(out: Path) -> Path:
    """nnUNet_results of all runs: inside the benchmark's folder, apart from the user's other models."""
    return out / "nnUNet_results"


def write_manifest(out: Path, runs: list[Run], machine: Machine) -> None:
    """Write the list of runs."""
    write_json(out / MANIFEST, {"machine": asdict(machine), "runs": [asdict(run) for run in runs]})


def read_manifest(out: Path) -> tuple[list[Run], Machine]:
    """Read the list of runs.

    Raises:
        FileNotFoundError: If nothing has been run or prepared there.
    """
    file = out / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; run voco_benchmark without --collect first")
    content = json.loads(file.read_text(encoding="utf-8"))
    return [Run(**run) for run in content["runs"]], Machine(**content["machine"])


def has_checkpoint(folder: Path) -> bool:
    """Whether nnU-Net can go on from something in this run's folder."""
    return any(os.path.isfile(folder / name) for name in CHECKPOINTS)
