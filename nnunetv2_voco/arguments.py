"""Values on a command line that argparse does not know."""

import argparse
from collections.abc import Callable


def number_list(kind: type, count: int | None = None, *, cube: bool = False) -> Callable[[str], tuple]:
    """Return a parser of numbers such as "1.5,1.5,3" or "64x64x64", for argparse's `type`.

    Args:
        kind: int or float.
        count: How many are expected; any number if None.
        cube: Let a single number stand for all `count`.
    """

    def parse(text: str) -> tuple:
        try:
            values = tuple(kind(part) for part in text.replace("x", ",").split(","))
        except ValueError:
            example = "64,64,64" if kind is int else "1.5,1.5,1.5"
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as {example}") from None
        if cube and len(values) == 1:
            values = values * (count or 1)
        if count is not None and len(values) != count:
            raise argparse.ArgumentTypeError(f"{text!r} holds {len(values)} numbers, {count} are expected")
        return values

    return parse
