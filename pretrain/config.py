"""The settings of a run: one frozen dataclass, its file, and what may change when a run is continued."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from nnunetv2_voco.atomic import write_json
from nnunetv2_voco.pretrain.config_checks import check_settings
from nnunetv2_voco.pretrain.recipes import RECIPES, Recipe

SPACING_MM = 1.5
CROP_SIZE = 64

RUNTIME_FIELDS = frozenset(
    {
        "device",
        "num_workers",
        "save_every",
        "log_every",
        "compile",
        "channels_last",
        "keep_memory",
        "precision",
        "chunk",
        "accumulate",
    }  # fmt: skip
)
"""Fields that say how a run is carried out, not what it computes; they may change when it is continued. Of
`accumulate`, the loop checks that all processes together still take as many volumes a step."""


def _doc(default: Any, text: str, kind: str | None = None) -> Any:
    """Describe a field; `kind` names what its value must be, see `pretrain.config_checks.KINDS`."""
    return field(default=default, metadata={"help": text, "kind": kind})


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Everything that determines a run, except where its input and output lie.

    Sizes and spacings are (z, y, x). Checked on construction, so that a run that starts has sound settings.

    Raises:
        ValueError: On construction, naming the field, its value and what is expected.
    """

    dataset: str | None = _doc(None, "nnU-Net dataset whose plans give spacing, normalisation and network")
    configuration: str = _doc("3d_fullres", "configuration within the plans")
    plans: str = _doc("nnUNetPlans", "name of the plans")
    spacing: tuple[float, float, float] = _doc((SPACING_MM,) * 3, "target spacing in mm, (z, y, x)")
    lossy: int = _doc(
        0, "largest error in HU that the cache may make to be smaller; 1 saves a quarter, 2 a third", "not negative"
    )
    window: tuple[float, float] | None = _doc(None, "HU window for normalisation; statistics of the folder if not set")
    arch: str = _doc("plain", "network when no dataset is given: plain or one of nnU-Net's residual presets")
    scale: str | None = _doc(None, "size of the plain network, in width and depth: S, B (nnU-Net's own), L or H")
    features: tuple[int, ...] | None = _doc(None, "channels per encoder stage, to narrow or widen the network")

    labelled: tuple[str, ...] = _doc((), "nnU-Net datasets, pre-processed with their plans, whose labels take part")
    recipe: str = _doc(
        "ssl",
        "what is learned from: ssl, unlabelled volumes; supervised, labelled datasets; semi, these and, from half the "
        "steps on, pseudo-labels of volumes; omni, all of that; omni with --labelled",
    )
    fold: str = _doc("0", "fold of the labelled datasets whose training cases are learned from, or all")
    labelled_batch_size: int = _doc(2, "labelled patches per step and process, of the plans' patch size", "positive")
    labelled_weight: float = _doc(1.0, "weight of Dice and cross-entropy on labelled patches", "not negative")
    pseudo_weight: float = _doc(1.0, "weight of Dice and cross-entropy on pseudo-labels", "not negative")
    pseudo_on: str = _doc(
        "patches",
        "what gets pseudo-labels: patches of the plans' size, as many a step as labelled ones and augmented like "
        "them, or VoCo's random crops as they are, as in the authors' code",
    )
    mirror: bool = _doc(True, "mirror labelled patches, as nnU-Net does; not for labels that tell left from right")

    crop_size: tuple[int, int, int] | None = _doc(
        None,
        "edge lengths of a crop in voxels, (z, y, x); 64 each if not "
        "set, or derived from the plans' patch size with -d",
    )
    grid: tuple[int, int, int] = _doc(
        (2, 2, 2), "base crops along (z, y, x); along an axis with one alone no place is learned"
    )
    random_crops: int = _doc(2, "random crops per volume", "positive")
    batch_size: int = _doc(4, "volumes per step and process", "positive")
    accumulate: int = _doc(1, "batches that are joined into one step, exactly as one larger batch", "positive")
    weights: str | None = _doc(
        None,
        "how often volumes are drawn, by folder, file or pattern, such as abdomen=8,chest=1, or a CSV table of name, "
        "weight and perhaps group; all alike if not set",
    )
    min_body_crop: float = _doc(0.2, "least share of body in a random crop", "share")
    min_body_base: float = _doc(0.05, "least share of body in a base crop that takes part in the loss", "share")

    flip_p: float = _doc(
        0.0, "probability of a flip of a crop, for each axis; a flipped crop shows no place of a body", "share"
    )
    rotate_p: float = _doc(0.0, "probability of a turn of a crop by a multiple of 90° in the axial plane", "share")

    steps: int = _doc(100_000, "optimiser steps", "positive")
    lr: float = _doc(1e-4, "peak learning rate", "positive")
    warmup_steps: int = _doc(1000, "steps of linear warm-up", "not negative")
    weight_decay: float = _doc(1e-2, "AdamW weight decay", "not negative")
    clip_norm: float = _doc(1.0, "largest norm of the gradient", "positive")
    teacher_momentum: float = _doc(0.9, "momentum of the teacher projector's moving average", "share")
    dropout: str = _doc(
        "element", "what dropout zeroes in the student's embedding: elements, or whole crops as in the authors' code"
    )
    dropout_p: float = _doc(0.2, "dropout probability", "share")
    projection_size: int = _doc(1024, "width of the projectors", "positive")
    intra_weight: float = _doc(1.0, "weight of the intra-volume loss", "not negative")
    inter_weight: float = _doc(1.0, "weight of the inter-volume loss once ramped up", "not negative")
    reg_weight: float = _doc(1.0, "weight of the regularisation", "not negative")
    place_weight: float = _doc(
        1.0,
        "weight of the place loss: coarse feature maps predict where in the body they are; needs crops without flips",
    )
    decoder_weight: float = _doc(
        0.0,
        "weight of the decoder's loss: from random crops with half of their blocks hidden it predicts intensities and "
        "places; needs crops without flips; 0 trains no decoder",
        "not negative",
    )
    inter_ramp: int | None = _doc(
        None,
        "steps over which the inter-volume weight grows from 0, starting when the "
        "validation intra loss is below chance; as many as the run has if not set, 0 for "
        "full weight from the start",
        "not negative",
    )

    val_fraction: float = _doc(0.1, "share of volumes held out for validation, at least one", "share")
    val_every: int = _doc(1000, "steps between validations", "positive")
    save_every: int = _doc(500, "steps between saved states", "positive")
    log_every: int = _doc(20, "steps between log records", "positive")
    seed: int = _doc(0, "seed of every random choice", "not negative")

    device: str = _doc("auto", "cuda, mps, cpu, or auto for the best there is")
    precision: str = _doc("auto", "autocast type; auto takes bf16 or fp16 on a GPU and fp32 on a CPU")
    num_workers: int | None = _doc(
        None, "processes that load samples; derived from the number of cores if not set", "not negative"
    )
    compile: bool = _doc(False, "compile the encoder with torch.compile")
    channels_last: bool = _doc(False, "use the channels_last_3d memory format")
    chunk: int | None = _doc(
        None,
        "crops that pass the encoder at once: memory depends on them and not on the batch, at one more forward pass; "
        "all if not set, or those of one batch with --accumulate",
        "positive",
    )
    gather: bool = _doc(
        True,
        "let batch statistics and inter-volume loss see the volumes of all processes, as one process with the larger "
        "batch would; without, every process has a loss of its own",
    )
    keep_memory: bool | None = _doc(
        None,
        "on a CPU, keep freed memory for the next step: a third faster, but more memory; if not set, where there is "
        "as much left as the first step took",
    )

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def learns_from(self) -> Recipe:
        """The parts of the recipe."""
        return RECIPES[self.recipe]

    @property
    def trains_decoder(self) -> bool:
        """Whether a decoder learns without labels."""
        return self.decoder_weight > 0 and self.recipe == "ssl"

    @property
    def ramp_steps(self) -> int:
        """Steps over which the inter-volume weight grows; 0 means full weight from the start."""
        return self.steps if self.inter_ramp is None else self.inter_ramp

    @property
    def crops_per_volume(self) -> int:
        """Random and base crops."""
        z, y, x = self.grid
        return self.random_crops + z * y * x

    @property
    def crops_per_step(self) -> int:
        """Crops and patches that one process takes in a step with all that the recipe has."""
        crops = self.batch_size * self.crops_per_volume if self.learns_from.unlabelled else 0
        return self.accumulate * (crops + (self.labelled_batch_size if self.labelled else 0))

    @property
    def patches_at_once(self) -> int | None:
        """Patches that pass the whole network at once; None for all of a step."""
        return self.labelled_batch_size if self.chunk is None and self.accumulate > 1 else self.chunk

    @property
    def crops_at_once(self) -> int | None:
        """Crops that pass the encoder at once; None for all of a step."""
        if self.chunk is None and self.accumulate > 1:
            return self.batch_size * self.crops_per_volume
        return self.chunk

    def save(self, path: Path) -> None:
        """Write the settings as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "PretrainConfig":
        """Read settings that `save` wrote."""
        return cls(**as_tuples(json.loads(path.read_text(encoding="utf-8"))))


def as_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Return `values` with lists turned into tuples, as the configuration holds them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def help_of(name: str) -> str:
    """Documentation of a field, with its default."""
    entry = next(f for f in fields(PretrainConfig) if f.name == name)
    default = entry.default
    if default is None or default == () or isinstance(default, bool):
        return str(entry.metadata["help"])
    shown = " ".join(str(v) for v in default) if isinstance(default, tuple) else default
    return f"{entry.metadata['help']} (default: {shown})"


def differing_fields(stored: PretrainConfig, given: dict[str, Any]) -> list[str]:
    """Compare the values given for a continued run with the stored ones; runtime fields may differ.

    Returns:
        One line per differing field, with both values.
    """
    return [
        f"{name}: {getattr(stored, name)!r} in the run, {value!r} given"
        for name, value in given.items()
        if name not in RUNTIME_FIELDS and getattr(stored, name) != value
    ]
