"""A fine-tuning as one run of an experiment: its cases, seed and length are laid down in the plans.

Prediction, and an nnU-Net without this package, ignore the block.
"""

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

PLANS_KEY = "nnunetv2_voco_experiment"
"""Key of the plans under which an `Experiment` stands."""


_LOWEST = {"seed": 0, "epochs": 1, "iterations_per_epoch": 1, "val_iterations_per_epoch": 1, "initial_draw": 0}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What one run of an experiment fixes; what is None, or not given, stays as nnU-Net or the trainer has it.

    Attributes:
        training_cases: Cases to train on, in place of those of the fold.
        validation_cases: Cases to validate on, in place of those of the fold.
        seed: Of initial weights and data; see `seed_everything` for how far that reaches.
        epochs: Length of the training. The phases of a schedule, such as a warm-up, keep their share of it.
        iterations_per_epoch: Training steps in an epoch.
        val_iterations_per_epoch: Steps of the running validation in an epoch.
        initial_lr: Highest learning rate of the schedule, in place of the trainer's.
        from_scratch: Load no weights, under the same schedule: the fair twin of any trainer.
        initial_draw: Number of the draw of initial weights, under the same seed, cases and batches.

    Raises:
        ValueError: On construction, naming the field, its value and what is expected.
    """

    training_cases: tuple[str, ...] | None = None
    validation_cases: tuple[str, ...] | None = None
    seed: int | None = None
    epochs: int | None = None
    iterations_per_epoch: int | None = None
    val_iterations_per_epoch: int | None = None
    initial_lr: float | None = None
    from_scratch: bool = False
    initial_draw: int = 0

    def __post_init__(self) -> None:
        for name in ("training_cases", "validation_cases"):
            cases = getattr(self, name)
            if cases is not None:
                object.__setattr__(self, name, _checked_cases(name, cases))
        for name, lowest in _LOWEST.items():
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < lowest):
                raise ValueError(f"{PLANS_KEY}: {name} {value!r} is not null or an integer of {lowest} or more")
        rate = self.initial_lr
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < 1):
            raise ValueError(f"{PLANS_KEY}: initial_lr {rate!r} is not null or a learning rate between 0 and 1")
        if not isinstance(self.from_scratch, bool):
            raise ValueError(f"{PLANS_KEY}: from_scratch {self.from_scratch!r} is not true or false")

    @classmethod
    def from_plans(cls, plans: Mapping[str, Any]) -> "Experiment":
        """Read the block in the plans; without one, everything is as usual.

        Raises:
            ValueError: If the block is none, has unknown keys or values that make no sense.
        """
        block = plans.get(PLANS_KEY, {})
        known = [field.name for field in fields(cls)]
        if not isinstance(block, dict) or block.keys() - set(known):
            found = ", ".join(block) if isinstance(block, dict) else repr(block)
            raise ValueError(f"{PLANS_KEY} in the plans: found {found}; expected a block of {', '.join(known)}")
        return cls(**block)

    @property
    def names_all_cases(self) -> bool:
        """Whether no case is left for nnU-Net's split to choose."""
        return self.training_cases is not None and self.validation_cases is not None

    def split(self, stock: tuple[list[str], list[str]], available: Collection[str]) -> tuple[list[str], list[str]]:
        """Put the experiment's cases in place of nnU-Net's.

        Args:
            stock: Training and validation cases of nnU-Net's split; empty where the experiment names them.
            available: The cases that are pre-processed.

        Returns:
            Training and validation cases.

        Raises:
            ValueError: If cases are not available, or of those that the experiment names some are in both sets.
        """
        for name in ("training_cases", "validation_cases"):
            missing = sorted(set(getattr(self, name) or ()) - set(available))
            if missing:
                raise ValueError(
                    f"{PLANS_KEY}: {len(missing)} of the {name} are not among the {len(available)} pre-processed cases "
                    f"({_some(missing)}); correct the names or run nnUNetv2_preprocess"
                )
        training = stock[0] if self.training_cases is None else list(self.training_cases)
        validation = stock[1] if self.validation_cases is None else list(self.validation_cases)
        both = sorted(set(training) & set(validation))
        if both and (self.training_cases or self.validation_cases):
            raise ValueError(
                f"{PLANS_KEY}: {len(both)} cases are for training and for validation ({_some(both)}); "
                "name training_cases and validation_cases without overlap (null means those of nnU-Net's split)"
            )
        return training, validation

    def scaled(self, phase_epochs: int, *, schedule_epochs: int) -> int:
        """Return the length of a phase that takes `phase_epochs` of a schedule of `schedule_epochs`: the same share.

        It is rounded, and at least one epoch.
        """
        if self.epochs is None:
            return phase_epochs
        return max(1, round(phase_epochs * self.epochs / schedule_epochs))


def seed_everything(*numbers: int) -> None:
    """Seed Python, NumPy and torch by a hash of `numbers`, such as seed, epoch and rank.

    The trainers call it before the network is initialised and before each epoch. With `nnUNet_n_proc_DA=0`, where
    batches are drawn in the training's own process, a training on a CPU with a fixed number of threads is so repeated
    bit for bit, also when it is interrupted and continued, and its twin from scratch sees the same batches. With
    workers, `nnUNet_n_proc_DA=1` or more, nnU-Net seeds NumPy in each worker from the operating system: initial
    weights and cases are repeated, batches are not. On a GPU nnU-Net lets cuDNN choose algorithms that differ in the
    last digits from run to run.
    """
    for_python, for_numpy, for_torch = (int(word) for word in np.random.SeedSequence(numbers).generate_state(3))
    random.seed(for_python)
    np.random.seed(for_numpy)
    torch.manual_seed(for_torch)


def _checked_cases(name: str, cases: Any) -> tuple[str, ...]:
    if not isinstance(cases, (list, tuple)) or not cases or not all(isinstance(case, str) for case in cases):
        raise ValueError(f"{PLANS_KEY}: {name} {cases!r} is not null or a list of one or more names of cases")
    if len(set(cases)) < len(cases):
        twice = sorted({case for case in cases if cases.count(case) > 1})
        raise ValueError(f"{PLANS_KEY}: {name} name {len(twice)} cases more than once ({_some(twice)})")
    return tuple(cases)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + ", …" * (len(names) > 3)
