"""What a run trains on and with: everything that follows from settings and volumes, fixed before the first step."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_voco.atomic import write_json
from nnunetv2_voco.checkpoint import CT_SCHEME
from nnunetv2_voco.encoder import Architecture, check_input_size
from nnunetv2_voco.pretrain.cache import Record
from nnunetv2_voco.pretrain.config import CROP_SIZE, PretrainConfig
from nnunetv2_voco.pretrain.dataset import CropPlan
from nnunetv2_voco.pretrain.dataset_plans import DatasetPlans
from nnunetv2_voco.pretrain.intensity import (
    Intensity,
    body_properties,
    ct_intensity,
    stored_intensity,
    window_properties,
)
from nnunetv2_voco.pretrain.labelled.sets import LabelledData, read_labelled_data
from nnunetv2_voco.pretrain.network import choose_architecture, crop_size_for_patch
from nnunetv2_voco.pretrain.preprocess import Target
from nnunetv2_voco.pretrain.weights import Grouping

MIN_FOR_VALIDATION = 3
"""With fewer volumes none is held out."""


def preprocessing_target(config: PretrainConfig, plans: DatasetPlans | None) -> Target:
    """Return what the volumes are brought to."""
    if plans is None:
        return Target(spacing_mm=config.spacing, lossy=config.lossy)
    stored = None if plans.scheme == CT_SCHEME else plans.scheme
    if stored and config.lossy:
        raise ValueError(
            f"lossy {config.lossy}: bounds an error in HU, but the volumes are stored normalised by {stored}; "
            "leave it out"
        )
    return Target(
        spacing_mm=plans.spacing_mm,
        transpose=plans.transpose,
        lossy=config.lossy,
        normalization=stored,
        use_mask_for_norm=plans.use_mask_for_norm if stored else False,
    )


def labelled_data(config: PretrainConfig) -> LabelledData | None:
    """Read the labelled datasets of the settings; None without any.

    Raises:
        ValueError: As `read_labelled_data`.
    """
    if not config.labelled:
        return None
    return read_labelled_data(
        config.labelled,
        configuration=config.configuration,
        plans=config.plans,
        fold="all" if config.fold == "all" else int(config.fold),
    )


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The fixed frame of a run.

    Attributes:
        training: Keys of the volumes that are trained on.
        validation: Keys of the volumes that are held out; empty with fewer than three volumes.
        architecture: The network.
        crop_size: Edge lengths of a crop in voxels, (z, y, x).
        scheme: Name of nnU-Net's normalisation class.
        properties: Its statistics.
        target: What the volumes were brought to.
        groups: Names of the groups of volumes that are drawn with weights; empty without weights.
        group_weights: How often a volume of each is drawn.
        group_of: Index of the group of each training volume.
        labelled: Labelled sets that take part.
        patch_size: Edge lengths of their patches in voxels, (z, y, x).
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]
    architecture: Architecture
    crop_size: tuple[int, int, int]
    scheme: str
    properties: dict[str, float]
    target: Target
    groups: tuple[str, ...] = ()
    group_weights: tuple[float, ...] = ()
    group_of: tuple[int, ...] = ()
    labelled: LabelledData | None = None
    patch_size: tuple[int, int, int] | None = None

    @property
    def volume_weights(self) -> list[float] | None:
        """How often each training volume is drawn, relative to the others; None if alike."""
        return [self.group_weights[i] for i in self.group_of] if self.groups else None

    @property
    def intensity(self) -> Intensity:
        """The normalisation."""
        return ct_intensity(self.properties) if self.scheme == CT_SCHEME else stored_intensity(self.scheme)

    @property
    def isotropic_plane(self) -> bool:
        """Whether the last two axes have equal spacing and crops equal edges there, so that crops may be turned."""
        _, y_mm, x_mm = self.target.spacing_mm
        return abs(y_mm - x_mm) < 0.01 * x_mm and self.crop_size[1] == self.crop_size[2]

    def crop_plan(self, config: PretrainConfig) -> CropPlan:
        """Return the layout of regions and crops."""
        return CropPlan(
            grid=config.grid,
            size_vox=self.crop_size,
            random_crops=config.random_crops,
            min_body_crop=config.min_body_crop,
            min_body_base=config.min_body_base,
            spacing_mm=self.target.spacing_mm,
        )

    def save(self, path: Path) -> None:
        """Write the plan as JSON."""
        content = asdict(self)
        content["architecture"] = self.architecture.to_plans()
        content["labelled"] = None if self.labelled is None else self.labelled.to_json()
        write_json(path, content)

    @classmethod
    def load(cls, path: Path) -> "TrainingPlan":
        """Read a plan that `save` wrote."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        target = {k: tuple(v) if isinstance(v, list) else v for k, v in content.pop("target").items()}
        labelled = content.pop("labelled", None)
        return cls(
            architecture=Architecture.from_plans(content.pop("architecture")),
            labelled=None if labelled is None else LabelledData.from_json(labelled),
            target=Target(**target),
            **{k: tuple(v) if isinstance(v, list) else v for k, v in content.items()},
        )


def make_training_plan(
    config: PretrainConfig,
    records: Sequence[Record],
    *,
    target: Target,
    plans: DatasetPlans | None,
    labelled: LabelledData | None = None,
    grouping: Grouping | None = None,
    histograms: Callable[[Sequence[str]], Iterable[np.ndarray]] | None = None,
) -> TrainingPlan:
    """Split the volumes, settle network, crop size, normalisation and weights.

    Args:
        config: Settings.
        records: The volumes.
        target: What they were brought to.
        plans: Of the nnU-Net dataset, if there is one.
        labelled: Labelled sets, if any take part.
        grouping: Volumes by weight, if any are given.
        histograms: Gives the histograms of the body for some keys, in their order; those of the records if None.

    Raises:
        ValueError: If settings do not fit each other, for example a crop size that the network cannot take.
    """
    training, validation = split_volumes(records, fraction=config.val_fraction, seed=config.seed)
    if grouping is not None and not any(grouping.weights[grouping.group_of[key]] for key in training):
        raise ValueError(f"weights {config.weights!r}: all training volumes have weight 0; give some a positive one")
    median_shape = np.median([record.shape for record in records], axis=0)
    architecture = choose_architecture(config, plans, median_shape=median_shape, volumes=len(records))
    if config.crop_size is not None:
        crop_size = config.crop_size
    elif plans is None:
        crop_size = (CROP_SIZE,) * 3
    else:
        crop_size = crop_size_for_patch(
            plans.patch_size, stride=architecture.total_stride, grid=config.grid, median_shape=median_shape
        )
    check_input_size(architecture, crop_size)
    scheme = plans.scheme if plans is not None else CT_SCHEME
    if scheme != CT_SCHEME:
        properties: dict[str, float] = {}
    elif config.window is not None:
        properties = window_properties(config.window)
    elif plans is not None:
        properties = plans.properties
    else:
        by_key = {record.key: record for record in records}
        in_records = (by_key[key].histogram for key in training)  # none in a dry run, which reads no body voxels
        properties = body_properties(histograms(training) if histograms else (h for h in in_records if h is not None))
    return TrainingPlan(
        training=training,
        validation=validation,
        architecture=architecture,
        crop_size=crop_size,
        scheme=scheme,
        properties=properties,
        target=target,
        groups=() if grouping is None else grouping.groups,
        group_weights=() if grouping is None else grouping.weights,
        group_of=() if grouping is None else tuple(grouping.group_of[key] for key in training),
        labelled=labelled,
        patch_size=None if labelled is None or plans is None else plans.patch_size,
    )


def make_labelled_plan(
    config: PretrainConfig, *, target: Target, plans: DatasetPlans, labelled: LabelledData
) -> TrainingPlan:
    """Settle what a run trains on that needs no unlabelled volumes.

    Raises:
        ValueError: As `make_training_plan`.
    """
    architecture = choose_architecture(config, plans, median_shape=np.ones(3), volumes=1)
    check_input_size(architecture, plans.patch_size)
    return TrainingPlan(
        training=(),
        validation=(),
        architecture=architecture,
        crop_size=plans.patch_size,
        scheme=plans.scheme,
        properties=plans.properties if plans.scheme == CT_SCHEME else {},
        target=target,
        labelled=labelled,
        patch_size=plans.patch_size,
    )


def split_volumes(records: Sequence[Record], *, fraction: float, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Hold out a share of the volumes, at least two where there are six or more, at least one from three on.

    The split depends on the volumes' content and the seed, not on their names or order.

    Returns:
        Keys for training and for validation, each in a fixed order.
    """
    by_content = sorted(records, key=lambda record: record.content)
    if len(by_content) < MIN_FOR_VALIDATION or fraction == 0:
        return tuple(r.key for r in by_content), ()
    held_out = max(2 if len(by_content) >= 6 else 1, round(fraction * len(by_content)))
    held_out = min(held_out, len(by_content) - 1)
    order = np.random.default_rng((seed, 4)).permutation(len(by_content))
    chosen = set(order[:held_out].tolist())
    return (
        tuple(r.key for i, r in enumerate(by_content) if i not in chosen),
        tuple(r.key for i, r in enumerate(by_content) if i in chosen),
    )
