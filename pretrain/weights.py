"""How often volumes are drawn: weights by folder, by pattern or by a table, turned into groups of volumes.

A name fits a volume's name, as in volumes.json, if it is that name, a folder or file on its way (`abdomen` fits
`CTS/abdomen/a.nii.gz`), or a leading part of it (`CTS/abdomen`). It may hold `*`, `?` and `[…]`; without a slash it is
compared with each folder and file on the way, with one with the whole name.
"""

import csv
import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path

OTHERS = "others"
"""Group of the volumes that nothing fits; their weight is 1."""

_GLOB = re.compile(r"[*?[]")


@dataclass(frozen=True, kw_only=True)
class WeightRow:
    """One line: what it fits, how often it is drawn, and how the report calls it."""

    name: str
    weight: float
    group: str


@dataclass(frozen=True, kw_only=True)
class WeightRows:
    """What a user gives.

    Attributes:
        rows: In the order given; the first that fits a volume counts, but its exact name goes before all others.
        label: What the settings of the run hold: the text, or name and digest of the table.
        source: What an error names.
        is_table: Whether rows may fit no volume; a mere text is more likely to be misspelled.
    """

    rows: tuple[WeightRow, ...]
    label: str
    source: str
    is_table: bool


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Volumes by group.

    Attributes:
        groups: Names of the groups.
        weights: How often a volume of each is drawn, relative to one of weight 1.
        group_of: Index of the group by key of the volume.
        unused: Names in the table that fit no volume.
    """

    groups: tuple[str, ...]
    weights: tuple[float, ...]
    group_of: Mapping[str, int]
    unused: tuple[str, ...] = ()


def read_weights(text: str) -> WeightRows:
    """Read `NAME=WEIGHT,NAME=WEIGHT…`, or a table of name, weight and, if there, group.

    Args:
        text: The text, or the path of a CSV file. Its first line may be a header.

    Raises:
        ValueError: If it is neither, naming the place, what was found and what is expected.
    """
    if "=" in text and not Path(text).is_file():
        parts = [part.rpartition("=") for part in text.split(",")]
        rows = [_row(name, weight, name, f"weights {text!r}") for name, _, weight in parts]
        return _without_doubles(rows, label=text, source=f"weights {text!r}", is_table=False)
    path = Path(text)
    if not path.is_file():
        raise ValueError(f"weights {text!r}: neither NAME=WEIGHT,NAME=WEIGHT… nor a table that exists")
    content = path.read_bytes()
    lines = list(csv.reader(content.decode("utf-8-sig").splitlines()))
    rows = []
    for number, line in enumerate(lines, start=1):
        cells = [cell.strip() for cell in line]
        if not any(cells) or (number == 1 and len(cells) > 1 and not _is_number(cells[1])):
            continue
        if len(cells) < 2:
            raise ValueError(f"{path}, line {number}: {','.join(line)!r} found, name,weight expected")
        group = cells[2] if len(cells) > 2 and cells[2] else f"weight {cells[1]}"
        rows.append(_row(cells[0], cells[1], group, f"{path}, line {number}"))
    digest = hashlib.sha256(content).hexdigest()[:12]
    return _without_doubles(rows, label=f"{path.name} ({digest})", source=str(path), is_table=True)


def group_volumes(given: WeightRows, names: Mapping[str, str]) -> Grouping:
    """Sort volumes into groups.

    Args:
        given: Weights.
        names: Name of each volume by its key.

    Raises:
        ValueError: If a name of a text, or every name of a table, fits no volume, or one group has two weights.
    """
    weight_of: dict[str, float] = {}
    for row in given.rows:
        if weight_of.setdefault(row.group, row.weight) != row.weight:
            raise ValueError(
                f"{given.source}: group {row.group!r} has weights {weight_of[row.group]:g} and {row.weight:g}; "
                "give each weight a group of its own"
            )
    search = _Search(given.rows)
    fitting = {key: search.first_that_fits(name) for key, name in names.items()}
    used = {row for row in fitting.values() if row is not None}
    unused = tuple(row.name for i, row in enumerate(given.rows) if i not in used)
    if unused and (not given.is_table or not used):
        raise ValueError(
            f"{given.source}: {unused[0]!r} fits none of the {len(names)} usable volumes, which are named like "
            f"{sorted(names.values())[0]!r}; name a folder, a file or a pattern with *"
        )
    group_names = {key: OTHERS if row is None else given.rows[row].group for key, row in fitting.items()}
    groups = tuple(group for group in dict.fromkeys((*weight_of, OTHERS)) if group in set(group_names.values()))
    place = {group: i for i, group in enumerate(groups)}
    return Grouping(
        groups=groups,
        weights=tuple(weight_of.get(group, 1.0) for group in groups),
        group_of={key: place[group] for key, group in group_names.items()},
        unused=unused,
    )


class _Search:
    """Finds the row of a name without trying all of them: a table may hold a line for every volume."""

    def __init__(self, rows: Iterable[WeightRow]) -> None:
        self.plain: dict[str, int] = {}
        self.globs: list[tuple[int, re.Pattern, bool]] = []
        for i, row in enumerate(rows):
            self.plain.setdefault(row.name, i)
            if _GLOB.search(row.name):
                self.globs.append((i, re.compile(translate(row.name)), "/" in row.name))

    def first_that_fits(self, name: str) -> int | None:
        if name in self.plain:
            return self.plain[name]
        parts = name.split("/")
        ways = [*parts, *("/".join(parts[:n]) for n in range(2, len(parts)))]
        best = min((self.plain[way] for way in ways if way in self.plain), default=None)
        for i, pattern, whole in self.globs:
            if best is not None and i > best:
                break
            if pattern.match(name) if whole else any(pattern.match(part) for part in parts):
                return i
        return best


def _row(name: str, weight: str, group: str, place: str) -> WeightRow:
    name = name.strip().rstrip("/")
    if not name or not _is_number(weight):
        raise ValueError(f"{place}: {name!r} with weight {weight.strip()!r} found; expected a name and a number")
    number = float(weight)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{place}: weight {weight.strip()} of {name!r} must be a number from 0 on")
    return WeightRow(name=name, weight=number, group=group.strip())


def _without_doubles(rows: list[WeightRow], *, label: str, source: str, is_table: bool) -> WeightRows:
    if not rows:
        raise ValueError(f"{source}: no weights found; expected name,weight in each line")
    names: set[str] = set()
    for row in rows:
        if row.name in names:
            raise ValueError(f"{source}: {row.name!r} is there twice")
        names.add(row.name)
        if row.group == OTHERS:
            raise ValueError(f"{source}: {OTHERS!r} is what volumes are called that nothing fits; choose another name")
    return WeightRows(rows=tuple(rows), label=label, source=source, is_table=is_table)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
