"""How many labelled cases a run trains on, and which: subsets that are nested and depend on nothing but a seed."""

import hashlib
from collections.abc import Sequence


def parse_amount(value: object) -> str:
    """Bring an amount of labels into one form: a share as "5%", a number of cases as "12".

    Args:
        value: "5%", a float in (0, 1] that means a share, or a whole number of cases; "all" is "100%".

    Raises:
        ValueError: If it is none of these.
    """
    text = str(value).strip()
    try:
        if text == "all":
            return "100%"
        if text.endswith("%"):
            share = float(text[:-1])
        elif isinstance(value, int) and not isinstance(value, bool) or text.isdigit():
            if int(text) < 1:
                raise ValueError
            return str(int(text))
        else:
            share = 100 * float(text)
        if not 0 < share <= 100:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"amount of labels {value!r}: expected a share such as 5% or 0.05, a number of cases such as 10, or all"
        ) from None
    return f"{share:g}%"


def count_cases(amount: str, available: int) -> int:
    """Return the number of cases that `amount` means among `available`; at least one.

    Raises:
        ValueError: If more cases are asked for than there are.
    """
    if amount.endswith("%"):
        return max(1, int(float(amount[:-1]) / 100 * available + 0.5))
    if int(amount) > available:
        raise ValueError(f"{amount} labelled cases are asked for; the fold has {available} training cases")
    return int(amount)


def shuffled(cases: Sequence[str], *key: object) -> list[str]:
    """Order cases by a digest of their names and `key`.

    The start of this order is a random subset, and each longer start holds each shorter one. It depends neither on the
    order in which the cases are given nor on the version of a random generator, and a case that joins the data set
    leaves the order of the others as it was.
    """
    prefix = "/".join(map(str, key))
    return sorted(cases, key=lambda case: hashlib.sha256(f"{prefix}/{case}".encode()).hexdigest())


def training_subset(cases: Sequence[str], count: int, *, dataset: str, fold: int, seed: int) -> list[str]:
    """Return `count` training cases of a fold, sorted; subsets of one data set, fold and seed are nested."""
    return sorted(shuffled(cases, "train", dataset, fold, seed)[:count])


def validation_subset(cases: Sequence[str], count: int | None, *, dataset: str, fold: int) -> list[str]:
    """Return `count` validation cases of a fold, sorted, all if None: the same for every run, so that runs are paired.

    Raises:
        ValueError: If more cases are asked for than there are.
    """
    if count is None:
        return sorted(cases)
    if count > len(cases):
        raise ValueError(f"validation_cases: {count} are asked for; fold {fold} of {dataset} has {len(cases)}")
    return sorted(shuffled(cases, "val", dataset, fold)[:count])
