"""From voxel features to labels: the classifiers of a probe, and what they put right.

Shape suffixes: N = voxels, E = features, C = classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

CLASSIFIERS = ("linear", "knn")

NEIGHBOURS = 20

SHRINKAGES = (0.3, 0.6, 0.9)
MIDDLE_SHRINKAGE = 0.6
"""Of the linear discriminant's covariance. Voxels of few cases say little of others: on 480 features of 5 cases of
hippocampus MR, 0.1 or Ledoit–Wolf's formula recognise 10 points less than these."""

FOLDS = 3
"""Groups of labelled cases that are left out in turn; with fewer cases `MIDDLE_SHRINKAGE` is taken."""

LEAST_PROBABILITY = 1e-6
"""Stands for the probability of a class that no neighbour has."""


class Voxels(NamedTuple):
    """Labelled voxels of some cases.

    Attributes:
        features_NE: What the encoder says of each.
        classes_N: Index of each one's class.
        weights_N: How many voxels each stands for.
    """

    features_NE: np.ndarray
    classes_N: np.ndarray
    weights_N: np.ndarray


def concatenate(parts: Sequence[Voxels]) -> Voxels:
    """Join the voxels of several cases."""
    return Voxels(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class Tally(NamedTuple):
    """Counts per class of what a classifier did on some voxels; counts of several cases may be added.

    Attributes:
        sampled: Voxels of the class that were looked at.
        right: Those that were recognised when every class is taken to be equally frequent.
        true: Voxels of the class that those looked at stand for.
        predicted: Voxels that were taken for the class, at the frequencies of the labelled cases.
        hit: Those among them that are of the class.
    """

    sampled: np.ndarray
    right: np.ndarray
    true: np.ndarray
    predicted: np.ndarray
    hit: np.ndarray


def fit_classifier(kind: str, voxels: Voxels, cases_N: np.ndarray) -> Pipeline:
    """Fit a classifier of standardised features.

    "linear" is a linear discriminant whose covariance is shrunk by the one of `SHRINKAGES` that recognises most in
    labelled cases left out; "knn" takes the vote of the most similar voxels by cosine.

    Args:
        kind: One of `CLASSIFIERS`.
        voxels: What to learn from.
        cases_N: Which case each voxel is of.
    """
    if kind == "knn":
        neighbours = min(NEIGHBOURS, len(cases_N))
        model = make_pipeline(StandardScaler(), KNeighborsClassifier(neighbours, metric="cosine", algorithm="brute"))
        return model.fit(voxels.features_NE, voxels.classes_N)
    model = make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage=MIDDLE_SHRINKAGE))
    if np.unique(cases_N).size < FOLDS:
        return model.fit(voxels.features_NE, voxels.classes_N)
    folds = list(GroupKFold(FOLDS).split(voxels.features_NE, groups=cases_N))
    search = GridSearchCV(
        model,
        {"lineardiscriminantanalysis__shrinkage": SHRINKAGES},
        scoring=_macro_recall,
        cv=folds,
        error_score="raise",
    )
    return search.fit(voxels.features_NE, voxels.classes_N).best_estimator_


def _macro_recall(model: Pipeline, features_NE: np.ndarray, classes_N: np.ndarray) -> float:
    right_N = model.predict(features_NE) == classes_N
    return float(np.mean([right_N[classes_N == index].mean() for index in np.unique(classes_N)]))


class FittedProbe:
    """A classifier fitted to the labelled voxels.

    Args:
        kind: One of `CLASSIFIERS`.
        cases: Voxels of each labelled case.
        num_classes: C; classes without a voxel are never predicted.

    Raises:
        ValueError: If the labelled cases show a single class.
    """

    def __init__(self, kind: str, cases: Sequence[Voxels], *, num_classes: int) -> None:
        self.num_classes = num_classes
        voxels = concatenate(cases)
        cases_N = np.repeat(np.arange(len(cases)), [len(case.classes_N) for case in cases])
        seen = np.bincount(voxels.classes_N, minlength=num_classes)
        volume = np.bincount(voxels.classes_N, weights=voxels.weights_N, minlength=num_classes)
        if (seen > 0).sum() < 2:
            raise ValueError("the labelled cases show a single class in these windows; take more --labelled cases")
        with np.errstate(divide="ignore"):
            self._log_seen, self._log_volume = np.log(seen / seen.sum()), np.log(volume / volume.sum())
        self._model = fit_classifier(kind, voxels, cases_N)

    def evidence(self, features_NE: np.ndarray) -> np.ndarray:
        """Return log-probabilities (N, C) as if every class were equally frequent; −inf where it was never seen."""
        probabilities = np.zeros((len(features_NE), self.num_classes))
        probabilities[:, self._model.classes_] = self._model.predict_proba(features_NE)
        known = np.isfinite(self._log_seen)
        return np.where(
            known, np.log(np.maximum(probabilities, LEAST_PROBABILITY)) - np.where(known, self._log_seen, 0), -np.inf
        )

    def tally(self, voxels: Voxels) -> Tally:
        """Classify voxels and count."""
        evidence_NC = self.evidence(voxels.features_NE)
        balanced_N = evidence_NC.argmax(axis=1)
        frequent_N = (evidence_NC + self._log_volume).argmax(axis=1)
        truth_N, weights_N = voxels.classes_N, voxels.weights_N

        def count(classes_N: np.ndarray, weights_N: np.ndarray) -> np.ndarray:
            return np.bincount(classes_N, weights=weights_N, minlength=self.num_classes)

        return Tally(
            sampled=count(truth_N, np.ones(len(truth_N))),
            right=count(truth_N, (balanced_N == truth_N).astype(float)),
            true=count(truth_N, weights_N),
            predicted=count(frequent_N, weights_N),
            hit=count(truth_N, weights_N * (frequent_N == truth_N)),
        )
