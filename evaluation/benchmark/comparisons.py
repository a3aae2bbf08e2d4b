"""Runs grouped into what is compared: an initialisation against its twin, seed by seed and case by case.

Where there are controls, further starts from scratch, the mean of all starts of a fold and seed takes the twin's place.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_voco.evaluation.benchmark.collect import Result, Score
from nnunetv2_voco.evaluation.benchmark.config import SCRATCH
from nnunetv2_voco.evaluation.benchmark.curves import epochs_to_reach, final_value
from nnunetv2_voco.evaluation.benchmark.statistics import Interval, difference, error_reduction, interval


@dataclass(frozen=True, order=True)
class Setting:
    """What a run and its twin share, apart from fold and seed.

    The number of training cases is that of the smallest fold: a share of the labels may be a case more in another.
    """

    dataset: str
    configuration: str
    schedule: str
    training_cases: int
    labels: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """The finished runs of one initialisation in one setting.

    Attributes:
        setting: The setting.
        initialisation: Name of the weights.
        results: The runs, one for each fold and seed.
        dice: Mean over seeds and cases.
        hd95_mm: The same of HD95, without the cases where it is not defined.
        nsd: The same of the normalised surface Dice.
    """

    setting: Setting
    initialisation: str
    results: tuple[Result, ...]
    dice: Interval
    hd95_mm: Interval
    nsd: Interval

    @property
    def is_control(self) -> bool:
        """Whether the runs start from scratch with other initial values than the twin's."""
        return self.results[0].run.initial_draw > 0

    @property
    def from_scratch(self) -> bool:
        """Whether the runs start from no weights: the twin or a control."""
        return self.initialisation == SCRATCH or self.is_control


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A run and the twins that it is compared with, of the same fold and seed: several where there are controls."""

    twins: tuple[Result, ...]
    other: Result


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Epochs until the twin's final pseudo Dice, over the pairs of runs.

    Attributes:
        epochs: Length of the trainings.
        twin: Median of the epochs after which the twin itself, or the mean of several, first reaches its final value.
        other: Median of the pre-trained runs'; infinite if at least half of them never do.
        never: How many never do.
        pairs: Number of pairs.
    """

    epochs: int
    twin: float
    other: float
    never: int
    pairs: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An initialisation against its twin.

    Attributes:
        group: The pre-trained runs.
        pairs: Pairs of runs, of the same fold and seed.
        cases: Different validation cases.
        dice: Difference of Dice, pre-trained minus twin; paired.
        hd95_mm: The same of HD95; below zero is better.
        nsd: The same of the normalised surface Dice.
        error_reduction: 1 − (1 − Dice) / (1 − Dice of the twin).
        speed: How fast the twin's final value is reached.
    """

    group: Group
    pairs: int
    cases: int
    dice: Interval
    hd95_mm: Interval
    nsd: Interval
    error_reduction: Interval
    speed: Speed


def group_results(results: Sequence[Result]) -> list[Group]:
    """Group runs, the twin first within each setting, then as they were listed."""
    counts: dict[tuple[str, ...], int] = {}
    for result in results:
        counts[_shared(result)] = min(result.run.training_cases, counts.get(_shared(result), result.run.training_cases))
    groups: dict[tuple[Setting, str], list[Result]] = {}
    for result in results:
        setting = Setting(*_shared(result)[:3], counts[_shared(result)], result.run.labels)
        groups.setdefault((setting, result.run.initialisation), []).append(result)
    found = [_group(setting, name, members) for (setting, name), members in groups.items()]
    names = list(dict.fromkeys(result.run.initialisation for result in results))
    return sorted(found, key=lambda g: (g.setting, g.initialisation != SCRATCH, names.index(g.initialisation)))


def compare(groups: Sequence[Group]) -> list[Comparison]:
    """Compare each group but the twin with the starts from scratch, over the folds and seeds which both have finished.

    A control is compared with the others.
    """
    comparisons = []
    for group in groups:
        if group.initialisation == SCRATCH:
            continue
        starts = [g for g in groups if g.setting == group.setting and g.from_scratch and g is not group]
        pairs = _pairs([result for start in starts for result in start.results], group.results)
        if pairs:
            comparisons.append(_compare(group, pairs))
    return comparisons


def case_means(result: Result, value: Callable[[Score], float]) -> dict[str, float]:
    """Return for each case the mean over its classes, without those where the value is not defined."""
    return _means_by_case((score.case, value(score)) for score in result.scores)


def measurements(columns: Sequence[Sequence[Sequence[Result]]], value: Callable[[Score], float]) -> list[np.ndarray]:
    """Arrange values for `statistics`: for each fold an array (K, S, C).

    Args:
        columns: For each of the K quantities its entries; the k-th entries of all have the same fold and seed. An entry
            is one run, or several of which the mean counts.
        value: What is measured.
    """
    folds: dict[int, list[list[dict[str, float]]]] = {}
    for entries in zip(*columns, strict=True):
        means = [_mean_of_runs(runs, value) for runs in entries]
        folds.setdefault(entries[0][0].run.fold, []).append(means)
    arrays = []
    for pairs in folds.values():
        cases = sorted({case for pair in pairs for means in pair for case in means})
        table = [[[means.get(case, math.nan) for case in cases] for means in pair] for pair in pairs]
        arrays.append(np.array(table).transpose(1, 0, 2))
    return arrays


def _dice(score: Score) -> float:
    return score.dice


def _hd95(score: Score) -> float:
    return score.hd95_mm


def _nsd(score: Score) -> float:
    return score.nsd


def _shared(result: Result) -> tuple[str, str, str, str]:
    run = result.run
    return run.dataset, run.configuration, run.schedule, run.labels


def _group(setting: Setting, name: str, members: Sequence[Result]) -> Group:
    entries = [[member] for member in members]
    means = [interval(measurements([entries], value), lambda mean: mean) for value in (_dice, _hd95, _nsd)]
    return Group(
        setting=setting, initialisation=name, results=tuple(members), dice=means[0], hd95_mm=means[1], nsd=means[2]
    )


def _mean_of_runs(runs: Sequence[Result], value: Callable[[Score], float]) -> dict[str, float]:
    """Return for each case the mean over runs, without those where the value is not defined."""
    return _means_by_case(item for run in runs for item in case_means(run, value).items())


def _means_by_case(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    of_case: dict[str, list[float]] = {}
    for case, value in values:
        of_case.setdefault(case, []).append(value)
    return {case: _mean(members) for case, members in of_case.items()}


def _pairs(starts: Iterable[Result], others: Iterable[Result]) -> list[Pair]:
    by_key: dict[tuple[int, int], list[Result]] = {}
    for start in starts:
        by_key.setdefault((start.run.fold, start.run.seed), []).append(start)
    keys = [(other, (other.run.fold, other.run.seed)) for other in others]
    return [Pair(twins=tuple(by_key[key]), other=other) for other, key in keys if key in by_key]


def _compare(group: Group, pairs: Sequence[Pair]) -> Comparison:
    columns: list[list[Sequence[Result]]] = [[pair.twins for pair in pairs], [[pair.other] for pair in pairs]]
    dice = measurements(columns, _dice)
    return Comparison(
        group=group,
        pairs=len(pairs),
        cases=sum(fold.shape[2] for fold in dice),
        dice=interval(dice, difference),
        hd95_mm=interval(measurements(columns, _hd95), difference),
        nsd=interval(measurements(columns, _nsd), difference),
        error_reduction=interval(dice, error_reduction),
        speed=_speed(pairs),
    )


def _speed(pairs: Sequence[Pair]) -> Speed:
    twins: list[float] = []
    others: list[float] = []
    for pair in pairs:
        twin_curve = np.mean([twin.curve.pseudo_dice for twin in pair.twins], axis=0).tolist()
        target = final_value(twin_curve)
        for epochs, curve in ((twins, twin_curve), (others, pair.other.curve.pseudo_dice)):
            reached = epochs_to_reach(curve, target)
            epochs.append(math.inf if reached is None else float(reached))
    return Speed(
        epochs=max(len(pair.other.curve.pseudo_dice) for pair in pairs),
        twin=_median(twins),
        other=_median(others),
        never=sum(map(math.isinf, others)),
        pairs=len(pairs),
    )


def _median(values: Sequence[float]) -> float:
    """Return the median; of an even number the upper one, so that it stays a number of epochs, or infinite."""
    return sorted(values)[len(values) // 2]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
