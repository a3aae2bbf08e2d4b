"""Which labelled datasets of nnU-Net take part: their cases, and their labels as classes of one network."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetv2_voco.checkpoint import CT_SCHEME
from nnunetv2_voco.classes import same_name
from nnunetv2_voco.pretrain.dataset_plans import find_plans
from nnunetv2_voco.pretrain.labelled.split import split_cases

if TYPE_CHECKING:  # imported where needed: takes a second
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

IGNORE_LABEL: int = -1
"""Class of voxels that take no part in the loss."""

OPTION = "--labelled"


@dataclass(frozen=True, kw_only=True)
class LabelledSet:
    """A pre-processed dataset.

    Attributes:
        name: Full name of the dataset.
        folder: Its pre-processed cases.
        training: Cases to train on.
        validation: Cases held out; with fold "all" the same.
        united: Class of the network for each label value of the dataset; `IGNORE_LABEL` for its ignore label.
        annotated: Whether the dataset annotates each class of the network, background first, which it always does.
        use_mask_for_norm: Whether images are zero outside nnU-Net's mask and are to stay so when augmented.
    """

    name: str
    folder: str
    training: tuple[str, ...]
    validation: tuple[str, ...]
    united: dict[int, int]
    annotated: tuple[bool, ...]
    use_mask_for_norm: bool = False


@dataclass(frozen=True, kw_only=True)
class LabelledData:
    """All labelled datasets of a run.

    Attributes:
        class_names: Foreground classes of all datasets; class c of the network is `class_names[c - 1]`.
        sets: The datasets.
    """

    class_names: tuple[str, ...]
    sets: tuple[LabelledSet, ...]

    @property
    def num_classes(self) -> int:
        """Classes of the network, background included."""
        return 1 + len(self.class_names)

    def to_json(self) -> dict[str, Any]:
        """Return plain types that JSON can hold."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "LabelledData":
        """Return what `to_json` made the content of."""
        sets = []
        for one in content["sets"]:
            fields: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in one.items()
            }
            fields["united"] = {int(value): int(label) for value, label in one["united"].items()}
            sets.append(LabelledSet(**fields))
        return cls(class_names=tuple(content["class_names"]), sets=tuple(sets))


def read_labelled_data(datasets: Sequence[str], *, configuration: str, plans: str, fold: int | str) -> LabelledData:
    """Read which cases and labels some datasets have, each through its own plans.

    Args:
        datasets: Names or numbers.
        configuration: Of each dataset's plans.
        plans: Name of each dataset's plans.
        fold: Of each dataset, as nnU-Net has split it or would; "all" trains and validates on all cases.

    Raises:
        ValueError: If nnU-Net's folders are not set; a dataset, its plans or configuration do not exist; the
            configuration is 2D or needs the predictions of another stage; cases are not pre-processed; a dataset has
            several input channels, regions, no foreground labels, or two labels of one name or value; there is no
            such fold; or a dataset is named twice.
    """
    read = [_read_dataset(dataset, configuration=configuration, plans=plans, fold=fold) for dataset in datasets]
    for number, (one, _) in enumerate(read):
        if one["name"] in [other["name"] for other, _ in read[:number]]:
            raise ValueError(f"{OPTION} {' '.join(datasets)}: {one['name']} is named twice; name it once")
    classes: dict[str, int] = {}
    class_names: list[str] = []
    for _, labels in read:
        for name in labels:
            if same_name(name) not in classes:
                class_names.append(name)
                classes[same_name(name)] = len(class_names)
    sets = []
    for fields, labels in read:
        united = {value: classes[same_name(name)] for name, value in labels.items()}
        annotated = tuple(label == 0 or label in united.values() for label in range(1 + len(class_names)))
        sets.append(LabelledSet(**fields | {"united": {0: 0} | united | fields["united"], "annotated": annotated}))
    return LabelledData(class_names=tuple(class_names), sets=tuple(sets))


def differing_preprocessing(datasets: Sequence[str], *, configuration: str, plans: str) -> list[str]:
    """Say where later datasets are pre-processed otherwise than the first: spacing, order of axes, normalisation.

    Raises:
        ValueError: As `find_plans`.
    """
    lines: list[str] = []
    first: dict[str, Any] = {}
    for dataset in datasets:
        name, facts = _preprocessing(dataset, configuration=configuration, plans=plans)
        first = first or {"name": name, **facts}
        lines += [
            f"{name}: {what} {_shown(value)}, but {_shown(first[what])} in {first['name']}"
            for what, value in facts.items()
            if not _alike(value, first[what])
        ]
    return lines


def _preprocessing(dataset: str, *, configuration: str, plans: str) -> tuple[str, dict[str, Any]]:
    """Return a dataset's name, and what of its pre-processing the network sees."""
    folder, manager, settings = find_plans(dataset, configuration=configuration, plans=plans, option=OPTION)
    scheme = settings.normalization_schemes[0]
    statistics = manager.foreground_intensity_properties_per_channel.get("0", {}) if scheme == CT_SCHEME else {}
    used = ("mean", "std", "percentile_00_5", "percentile_99_5")  # by CTNormalization
    return folder.name, {
        "spacing in mm": [float(length) for length in settings.spacing],
        "order of axes": [int(axis) for axis in manager.transpose_forward],
        "normalisation": scheme,
        "mean, standard deviation and percentiles 0.5 and 99.5 of CTNormalization": [
            float(statistics[key]) for key in used if key in statistics
        ],
    }


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, str) or len(one) != len(other):
        return one == other
    return np.allclose(one, other, rtol=1e-3)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(f"{number:.5g}" for number in value) or "none"


def _read_dataset(
    dataset: str, *, configuration: str, plans: str, fold: int | str
) -> tuple[dict[str, Any], dict[str, int]]:
    """Read one dataset.

    Returns:
        Fields of its `LabelledSet`, of `united` only the ignore label, and its foreground labels' values by name.
    """
    from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

    folder, manager, settings = find_plans(dataset, configuration=configuration, plans=plans, option=OPTION)
    if settings.previous_stage_name is not None:
        raise ValueError(
            f"configuration {configuration} of {folder.name} needs the predictions of {settings.previous_stage_name}; "
            "take 3d_fullres or 3d_lowres"
        )
    file = folder / "dataset.json"
    if not file.is_file():
        raise ValueError(f"{file}: missing; run nnUNetv2_plan_and_preprocess for this dataset again")
    description = json.loads(file.read_text(encoding="utf-8"))
    channels = determine_num_input_channels(manager, settings, description)
    if channels != 1:
        raise ValueError(
            f"{file}: {channels} input channels; pre-training takes images of one, leave {folder.name} out"
        )
    manager_of_labels = manager.get_label_manager(description)
    labels = _foreground_labels(file, description["labels"], manager_of_labels)
    number = convert_dataset_name_to_id(folder.name)
    command = f"nnUNetv2_preprocess -d {number} -plans_name {plans} -c {configuration}"
    training, validation = split_cases(folder, settings.data_identifier, fold=fold, command=command)
    ignore = manager_of_labels.ignore_label
    fields = {
        "name": folder.name,
        "folder": str(folder / settings.data_identifier),
        "training": training,
        "validation": validation,
        "united": {} if ignore is None else {int(ignore): IGNORE_LABEL},
        "use_mask_for_norm": bool(settings.use_mask_for_norm[0]),
    }
    return fields, labels


def _foreground_labels(file: Path, content: Mapping[str, Any], manager: "LabelManager") -> dict[str, int]:
    """Return the values of a dataset's foreground labels by name, in the order of its dataset.json."""
    if manager.has_regions:
        regions = [name for name, value in content.items() if isinstance(value, list) and len(value) > 1]
        raise ValueError(
            f"{file}: {', '.join(regions)} are regions of several labels, which cannot be united with labels of other "
            "datasets by name; give every label a name of its own, or leave the dataset out"
        )
    values = {name: int(value[0] if isinstance(value, list) else value) for name, value in content.items()}
    kinds: dict[str, list[Any]] = {"name": [same_name(name) for name in values], "value": list(values.values())}
    for what, found in kinds.items():
        twice = [name for name, one in zip(values, found, strict=True) if found.count(one) > 1]
        if twice:
            raise ValueError(f"{file}: labels {', '.join(twice)} have the same {what}; give each its own")
    labels = {name: value for name, value in values.items() if name not in ("background", "ignore")}
    if not labels:
        raise ValueError(f"{file}: no foreground labels; there is nothing to learn from, leave the dataset out")
    return labels
