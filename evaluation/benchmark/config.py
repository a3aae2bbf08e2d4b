"""What a benchmark varies, read from its YAML file. The fields below are the file's keys."""

import difflib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from nnunetv2_voco.evaluation.benchmark.amounts import parse_amount

SCRATCH = "scratch"
"""Name of the initialisation that every other is compared with: the twin. It is always part of a benchmark."""

STOCK = "stock"
"""Name of the schedule of `nnUNetTrainerVoCo`; other names are the suffixes of its variants."""

DEVICES = ("cuda", "cpu", "mps")


class ConfigError(ValueError):
    """The file asks for something that cannot be done."""


@dataclass(frozen=True, kw_only=True)
class Initialisation:
    """Weights that runs start from.

    Attributes:
        name: How tables call them.
        checkpoint: File, relative to the YAML file, or "hf://owner/name[/file]", in which {seed} and {labels}
            stand for the run's seed and amount of labels; None for a start from scratch.
        random: Number from 1 on of a draw of initial values: another start from scratch than the twin's, with the same
            cases and batches, which shows how far two starts part by chance. None for the twin and with a checkpoint.
        decoder: See `voco_plan --decoder`.
        across_families: See `voco_plan --across_families`.
        insist: See `voco_plan --insist`.
    """

    name: str
    checkpoint: str | None
    random: int | None = None
    decoder: bool = False
    across_families: bool = False
    insist: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9-]+", self.name):
            raise ConfigError(f"name {self.name!r}: take letters, digits and -")
        _check_positive(f"initialisation {self.name!r}: random", self.random)
        expected = 0 if self.name == SCRATCH else 1
        if (self.checkpoint is not None) + (self.random is not None) != expected:
            raise ConfigError(
                f"initialisation {self.name!r}: every one but {SCRATCH} has a checkpoint or a number as random"
            )
        if self.random is not None and (self.decoder or self.across_families or self.insist):
            raise ConfigError(f"initialisation {self.name!r}: decoder, across_families and insist need a checkpoint")


@dataclass(frozen=True, kw_only=True)
class DatasetGrid:
    """The runs of one data set: every combination of what is listed. Keys may stand at the top of the file, too.

    Attributes:
        dataset: Name or number; planned and pre-processed by nnU-Net.
        about: What the data set shows and where it comes from; the report says it.
        plans: Plans that the runs start from.
        configurations: 3D configurations of these plans, none of a cascade's second stage.
        initialisations: Weights, beside the twin which always runs.
        schedules: "stock", or the suffix of a variant of `nnUNetTrainerVoCo`: "warmup", "sawtooth_150ep", …
        labels: Amounts of training cases: shares or numbers.
        folds: Folds of nnU-Net's cross-validation.
        seeds: Each draws its own subset of the training cases and seeds the training.
        subset_seed: Draws the same subset for all seeds, if given.
        epochs: Length of a run; the trainer's own if None.
        iterations_per_epoch: nnU-Net's 250 if None.
        val_iterations_per_epoch: nnU-Net's 50 if None.
        initial_lr: Highest learning rate of the schedules; the trainers' own if None.
        validation_cases: Number of validation cases, the same for all runs of a fold; all if None.
        nsd_tolerance_mm: Distance within which surfaces count as equal.
    """

    dataset: str
    about: str = ""
    plans: str = "nnUNetPlans"
    configurations: tuple[str, ...] = ("3d_fullres",)
    initialisations: tuple[Initialisation, ...] = ()
    schedules: tuple[str, ...] = (STOCK,)
    labels: tuple[str, ...] = ("5%", "10%", "50%", "100%")
    folds: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0, 1, 2)
    subset_seed: int | None = None
    epochs: int | None = None
    iterations_per_epoch: int | None = None
    val_iterations_per_epoch: int | None = None
    initial_lr: float | None = None
    validation_cases: int | None = None
    nsd_tolerance_mm: float = 2.0

    def __post_init__(self) -> None:
        for name in ("configurations", "schedules", "labels", "folds", "seeds", "initialisations"):
            values = getattr(self, name)
            names = [value.name if isinstance(value, Initialisation) else value for value in values]
            if not values or len(set(names)) < len(names):
                raise ConfigError(f"{name}: expected different values, at least one, found {names}")
        for name in ("epochs", "iterations_per_epoch", "val_iterations_per_epoch", "validation_cases"):
            _check_positive(name, getattr(self, name))
        for name in ("folds", "seeds"):
            if not all(isinstance(value, int) and value >= 0 for value in getattr(self, name)):
                raise ConfigError(f"{name}: expected whole numbers from 0 on, found {list(getattr(self, name))}")
        if self.initial_lr is not None and not (isinstance(self.initial_lr, float) and 0 < self.initial_lr < 1):
            raise ConfigError(f"initial_lr: expected a learning rate between 0 and 1, found {self.initial_lr!r}")
        if not self.nsd_tolerance_mm > 0:
            raise ConfigError(f"nsd_tolerance_mm: {self.nsd_tolerance_mm} is not positive")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark file.

    Attributes:
        out: Folder of logs, results and report, relative to the file; "FILE_benchmark" beside it by default.
        device: "cuda", "cpu" or "mps".
        jobs: Runs at the same time.
        threads: Threads of each run on a CPU; by default the cores divided by `jobs`.
        workers: Processes of each run that load data (nnUNet_n_proc_DA); by default none on a CPU, else nnU-Net's.
        skip_missing: Leave out data sets that are not pre-processed, in place of stopping.
        datasets: The grids.
    """

    out: Path
    device: str = "cuda"
    jobs: int = 1
    threads: int | None = None
    workers: int | None = None
    skip_missing: bool = False
    datasets: tuple[DatasetGrid, ...]

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise ConfigError(f"device: {self.device!r} is none of {', '.join(DEVICES)}")
        _check_positive("jobs", self.jobs)
        _check_positive("threads", self.threads)
        if not self.datasets:
            raise ConfigError("datasets: none is listed")

    @property
    def threads_of_a_run(self) -> int:
        """Threads that one run uses on a CPU."""
        return self.threads or max(1, (os.cpu_count() or 1) // self.jobs)


def read_benchmark(file: Path) -> Benchmark:
    """Read a YAML file.

    Raises:
        FileNotFoundError: If it is not there.
        ConfigError: If it is no benchmark; the message names the file, the key, and what is expected.
    """
    import yaml

    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        return _benchmark(content, file)
    except (yaml.YAMLError, ConfigError) as error:
        raise ConfigError(f"{file}: {error}") from None


def _benchmark(content: Any, file: Path) -> Benchmark:
    if not isinstance(content, Mapping) or not isinstance(content.get("datasets"), list):
        raise ConfigError("expected a mapping with a list under the key datasets")
    shared_keys = [name for name in _keys(DatasetGrid) if name not in ("dataset", "about")]
    _refuse_unknown(content, [*_keys(Benchmark), *shared_keys])
    shared = {key: value for key, value in content.items() if key in shared_keys}
    grids = []
    for number, entry in enumerate(content["datasets"], start=1):
        try:
            grids.append(_grid(shared | (entry if isinstance(entry, dict) else {"dataset": entry}), file.parent))
        except ConfigError as error:
            raise ConfigError(f"datasets, entry {number}: {error}") from None
    own = {key: value for key, value in content.items() if key in _keys(Benchmark)}
    own["out"] = _beside(file.parent, own.get("out", f"{file.stem}_benchmark"))
    return _make(Benchmark, own | {"datasets": tuple(grids)})


def _grid(entry: Mapping[str, Any], folder: Path) -> DatasetGrid:
    _refuse_unknown(entry, _keys(DatasetGrid))
    settings = dict(entry)
    settings["dataset"] = str(settings.get("dataset", ""))
    if not settings["dataset"]:
        raise ConfigError("the key dataset is missing")
    for name in ("configurations", "schedules", "labels", "folds", "seeds"):
        if name in settings:
            values = settings[name] if isinstance(settings[name], list) else [settings[name]]
            settings[name] = tuple(values)
    if "labels" in settings:
        try:
            settings["labels"] = tuple(parse_amount(value) for value in settings["labels"])
        except ValueError as error:
            raise ConfigError(f"labels: {error}") from None
    if isinstance(settings.get("initial_lr"), str):  # YAML takes 3e-3, without a point, for text
        with suppress(ValueError):
            settings["initial_lr"] = float(settings["initial_lr"])
    twin = Initialisation(name=SCRATCH, checkpoint=None)
    listed = [_initialisation(item, folder) for item in settings.get("initialisations") or []]
    settings["initialisations"] = (twin, *(item for item in listed if item != twin))
    return _make(DatasetGrid, settings)


def _initialisation(entry: Any, folder: Path) -> Initialisation:
    if entry == SCRATCH:
        return Initialisation(name=SCRATCH, checkpoint=None)
    if not isinstance(entry, Mapping):
        raise ConfigError(f"initialisations: expected a mapping with name and checkpoint, found {entry!r}")
    _refuse_unknown(entry, _keys(Initialisation))
    settings = {"checkpoint": None, **entry}
    if settings["checkpoint"] is not None and "://" not in settings["checkpoint"]:
        settings["checkpoint"] = str(_beside(folder, settings["checkpoint"]))
    return _make(Initialisation, settings)


def _beside(folder: Path, path: str) -> Path:
    """Return an absolute path; relative ones start at the YAML file's folder."""
    return (folder / os.path.expandvars(os.path.expanduser(str(path)))).resolve()


def _make(kind: type, settings: Mapping[str, Any]) -> Any:
    missing = [field.name for field in fields(kind) if field.default is MISSING and field.name not in settings]
    if missing:
        raise ConfigError(f"the key {missing[0]} is missing")
    return kind(**settings)


def _keys(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


def _refuse_unknown(entry: Mapping[str, Any], known: list[str]) -> None:
    for key in entry:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            raise ConfigError(f"unknown key {key!r}; " + (f"did you mean {near[0]}?" if near else f"known: {known}"))


def _check_positive(name: str, value: Any) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ConfigError(f"{name}: expected a whole number from 1 on, found {value!r}")
