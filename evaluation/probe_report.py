"""What a probe found: a table and a verdict for a person, JSON for a program."""

from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nnunetv2_voco.evaluation.probe import ENCODERS, ProbeRequest, ProbeResult
from nnunetv2_voco.evaluation.probe_scores import Difference, Scores, paired_difference

TITLES = {"linear": "linear", "knn": "k-NN"}


def print_tables(result: ProbeResult, console: Console) -> None:
    """Print the scores per class and their means, each as mean ± standard deviation over the seeds."""
    seeds, chance = len(result.labelled_cases), 1 / len(result.labels)
    console.print(f"\nShare of each class's voxels recognised, all classes equally frequent (by chance {chance:.2f})")
    console.print(_table(result, {name: (s.recall_SC, s.balanced_accuracy_S) for name, s in _named(result)}))
    console.print(
        f"\nDice within the windows, at the frequencies of the labelled cases (mean without {result.labels[0]})",
        markup=False,
    )
    console.print(_table(result, {name: (s.dice_SC, s.mean_dice_S) for name, s in _named(result)}))
    console.print(f"± standard deviation over {seeds} seeds" * (seeds > 1), highlight=False)


def _named(result: ProbeResult) -> list[tuple[str, Scores]]:
    return [
        (f"{TITLES[kind]},\n{encoder}", scores) for kind, of in result.scores.items() for encoder, scores in of.items()
    ]


def _table(result: ProbeResult, columns: dict[str, tuple[np.ndarray, np.ndarray]]) -> Table:
    """Build a table of (per class and seed, mean per seed) for each title."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class", max_width=24)
    for title in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for index, label in enumerate(result.labels):
        table.add_row(escape(label), *(_spread(per_class_SC[:, index]) for per_class_SC, _ in columns.values()))
    table.add_row("mean", *(_spread(mean_S) for _, mean_S in columns.values()), style="bold")
    return table


def verdict(result: ProbeResult) -> str:
    """Say in plain words whether the encoder carries more anatomy than a random one of its shape."""
    difference = _difference(result, "linear")
    ours_S, theirs_S = (result.scores["linear"][encoder].balanced_accuracy_S for encoder in ENCODERS)
    ours, theirs = ours_S.mean(), theirs_S.mean()
    if difference.low > 0 and ours > theirs_S.max():
        words = "The encoder carries anatomy that a random one does not"
    elif difference.high < 0 and ours < theirs_S.min():
        words = "The encoder carries less anatomy than a random one of its shape"
    elif difference.low <= 0 <= difference.high:
        words = "No difference to a random encoder can be seen (more --test cases or --seeds narrow the interval)"
    else:
        words = "No clear difference to a random encoder can be seen, for one of them does as well"
    labelled = len(result.labelled_cases[0])
    return (
        f"{words}: a linear classifier that learned from {labelled} labelled {'case' if labelled == 1 else 'cases'} "
        f"recognises {ours:.1%} of the voxels, averaged over {len(result.labels)} classes, from its frozen features "
        f"and {theirs:.1%} from random ones; difference {100 * difference.value:+.1f} points, 95 % interval "
        f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}, over {len(result.test_cases)} test cases and "
        f"{len(result.labelled_cases)} seeds."
    )


def to_json(result: ProbeResult, request: ProbeRequest, sha256: str) -> dict[str, Any]:
    """Return everything that was asked and found, in types that JSON knows; absent classes are null."""
    return {
        "request": {**vars(request), "sha256": sha256, "window_size": list(result.window_size)},
        "classes": list(result.labels),
        "test_cases": list(result.test_cases),
        "labelled_cases": [list(cases) for cases in result.labelled_cases],
        "scores": {
            kind: {
                encoder: {
                    "balanced_accuracy": _plain(scores.balanced_accuracy_S),
                    "recognised": _plain(scores.recall_SC),
                    "mean_dice": _plain(scores.mean_dice_S),
                    "dice": _plain(scores.dice_SC),
                }
                for encoder, scores in of.items()
            }
            for kind, of in result.scores.items()
        },
        "difference_of_balanced_accuracy": {
            kind: vars(_difference(result, kind)) | {"confidence": 0.95} for kind in result.scores
        },
        "transfer": result.transfer.to_json(),
        "mismatches": list(result.mismatches),
        "seconds": round(result.seconds, 1),
        "verdict": verdict(result),
    }


def _difference(result: ProbeResult, kind: str) -> Difference:
    ours, theirs = (result.scores[kind][encoder] for encoder in ENCODERS)
    return paired_difference(ours, theirs)


def _spread(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return "absent"
    return f"{known.mean():.2f}" + (f" ± {known.std(ddof=1):.2f}" if len(known) > 1 else "")


def _plain(values: np.ndarray) -> list:
    """Nested lists of floats rounded to five digits, None for NaN."""
    if values.ndim > 1:
        return [_plain(row) for row in values]
    return [round(float(value), 5) if np.isfinite(value) else None for value in values]
