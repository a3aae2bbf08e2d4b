"""Names of a segmentation network's outputs, by which those of two networks are matched."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

BACKGROUND = "background"


def same_name(name: str) -> str:
    """Return what spellings of one name have in common: "Left_Kidney" and "left kidney" are alike."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def output_classes(labels: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a network's outputs in their order, background first.

    Args:
        labels: `labels` of nnU-Net's dataset.json.

    Returns:
        Nothing for regions of several labels: their outputs are yes or no each, not one of all.
    """
    single = {name: value[0] if isinstance(value, Sequence) else value for name, value in labels.items()}
    if any(isinstance(value, Sequence) and len(value) != 1 for value in labels.values()):
        return ()
    names = [name for name in sorted(single, key=lambda name: int(single[name])) if same_name(name) != "ignore"]
    return (BACKGROUND, *(name for name in names if int(single[name]) != 0))


def matching_outputs(source: Sequence[str], target: Sequence[str]) -> list[tuple[int, int]]:
    """Pair the outputs of two networks that stand for the same class.

    Returns:
        Index in `source` and in `target`, in the order of `target`; none if background is all that they share.
    """
    places = {same_name(name): index for index, name in enumerate(source)}
    pairs = [(places[same_name(name)], index) for index, name in enumerate(target) if same_name(name) in places]
    return pairs if any(same_name(target[index]) != BACKGROUND for _, index in pairs) else []
