"""From a run's model to the checkpoint that fine-tuning reads."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nnunetv2_voco.checkpoint import Checkpoint, save_checkpoint
from nnunetv2_voco.pretrain.config import PretrainConfig
from nnunetv2_voco.pretrain.distributed import world_size
from nnunetv2_voco.pretrain.labelled.model import SegmentationModel
from nnunetv2_voco.pretrain.model import VoCoModel
from nnunetv2_voco.pretrain.state import Progress
from nnunetv2_voco.pretrain.training_plan import TrainingPlan

PACKAGES = ("nnunetv2_voco", "torch", "nnunetv2", "dynamic-network-architectures", "batchgeneratorsv2", "SimpleITK")

_SETTINGS = (
    "steps",
    "lr",
    "warmup_steps",
    "weight_decay",
    "clip_norm",
    "batch_size",
    "accumulate",
    "gather",
    "random_crops",
    "teacher_momentum",
    "dropout",
    "dropout_p",
    "projection_size",
    "intra_weight",
    "inter_weight",
    "reg_weight",
    "place_weight",
    "decoder_weight",
    "inter_ramp",
    "seed",
    "min_body_crop",
    "min_body_base",
    "flip_p",
    "rotate_p",
)
_LABELLED_SETTINGS = ("fold", "labelled_batch_size", "labelled_weight", "pseudo_weight", "pseudo_on", "mirror")
# fmt: skip


def export_encoder(
    path: Path,
    *,
    model: VoCoModel | SegmentationModel,
    config: PretrainConfig,
    plan: TrainingPlan,
    progress: Progress,
) -> None:
    """Write the encoder, of a labelled recipe the whole network, with its description to `path`, atomically."""
    if isinstance(model, SegmentationModel):
        weights = model.network_weights()
    else:
        weights = {f"encoder.{name}": tensor for name, tensor in model.encoder.state_dict().items()}
        if model.decoder_loss is not None:
            weights |= model.decoder_loss.weights()
    settings = _SETTINGS + (_LABELLED_SETTINGS if plan.labelled else ())
    checkpoint = Checkpoint(
        weights={name: tensor.contiguous() for name, tensor in weights.items()},  # a run may hold its channels last
        architecture=plan.architecture,
        num_input_channels=1,
        preprocessing={
            "spacing_mm": list(plan.target.spacing_mm),
            "orientation": "LPS",
            "transpose": list(plan.target.transpose),
            "normalization_scheme": plan.scheme,
            "intensity_properties": dict(plan.properties),
            "use_mask_for_norm": plan.target.use_mask_for_norm,
            "interpolation": "linear",
        },
        pretraining={
            "method": "VoCo" if config.learns_from.contrast else "labels",
            "grid": list(config.grid),
            "crop_size": list(plan.crop_size),
            "steps": progress.step,
            "num_volumes": len(plan.training),
            "num_validation_volumes": len(plan.validation),
            "metrics": dict(progress.latest),
            "metrics_untrained": dict(progress.untrained),
            "settings": {name: getattr(config, name) for name in settings}
            | {"precision": progress.precision, "processes": world_size(), "skipped_steps": progress.skipped_steps},
            **_labelled(config, plan, progress),
        },
        provenance={"packages": package_versions(), "python": platform.python_version()},
    )
    save_checkpoint(path, checkpoint)


def _labelled(config: PretrainConfig, plan: TrainingPlan, progress: Progress) -> dict[str, Any]:
    """Describe what labels contributed; nothing for a run without."""
    if plan.labelled is None:
        return {}
    return {
        "recipe": config.recipe,
        "classes": list(plan.labelled.class_names),
        "patch_size": list(plan.patch_size or ()),
        "num_labelled_cases": sum(len(labelled.training) for labelled in plan.labelled.sets),
        "dice": dict(progress.dice),
        "dice_untrained": dict(progress.dice_untrained),
    }


def package_versions() -> dict[str, str]:
    """Versions of the packages that shape the result."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
