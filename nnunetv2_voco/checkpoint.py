"""The checkpoint format: what `voco_pretrain` leaves behind and the fine-tuning trainers read.

One file, plain types and tensors only, so that `torch.load(weights_only=True)` reads it. It says by itself which
network the weights belong to, what that network expects to see, and how it was trained. It never holds anything that
came from a patient: no file names, no DICOM tags, no images.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nnunetv2_voco.atomic import write_atomically
from nnunetv2_voco.classes import BACKGROUND
from nnunetv2_voco.encoder import Architecture
from nnunetv2_voco.nnssl import adaptation_plan, citation_list

FORMAT = "nnunetv2_voco.encoder"
FORMAT_VERSION = 2
"""Newest version that is read. Files of encoders are written as version 1, those that hold a decoder, too, as 2."""

CT_SCHEME = "CTNormalization"
"""nnU-Net's normalisation with statistics of the data set, where others take them from each volume."""

CITATIONS = (
    "Wu, Zhuang, Chen: Large-Scale 3D Medical Image Pre-training with Geometric Context Priors. "
    "IEEE TPAMI 2025, doi 10.1109/TPAMI.2025.3639593",
    "Wu, Zhuang, Chen: VoCo: A Simple-yet-Effective Volume Contrastive Learning Framework for 3D Medical Image "
    "Analysis. CVPR 2024, arXiv 2402.17300",
    "Isensee, Jaeger, Kohl, Petersen, Maier-Hein: nnU-Net: a self-configuring method for deep learning-based "
    "biomedical image segmentation. Nature Methods 18, 2021",
)


class CheckpointError(ValueError):
    """A file is no checkpoint of this package, or not one that this version can read."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Encoder weights and all that is needed to use them.

    Attributes:
        weights: State dict of the encoder, named as in the whole network ("encoder.stages.0…"); of a recipe with labels
            also of the decoder ("decoder.…"), whose outputs are background and `pretraining["classes"]`.
        architecture: The network the weights belong to.
        num_input_channels: Channels the encoder takes.
        preprocessing: `spacing_mm` (z, y, x), `orientation`, `normalization_scheme` (name of nnU-Net's class),
            `intensity_properties` (its statistics) and `interpolation`.
        pretraining: The run: method, `grid`, `crop_size` (z, y, x) in voxels, `steps`, `num_volumes`, `metrics`, the
            training settings.
        provenance: Package versions that wrote the file.
        citations: What to cite when using the weights.
    """

    weights: dict[str, torch.Tensor]
    architecture: Architecture
    num_input_channels: int = 1
    preprocessing: dict[str, Any] = field(default_factory=dict)
    pretraining: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    citations: tuple[str, ...] = CITATIONS

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the decoder's outputs, background first; none without a decoder."""
        names = self.pretraining.get("classes")
        return (BACKGROUND, *names) if names else ()


def save_checkpoint(path: str | os.PathLike, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path`, atomically."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "format_version": 2 if any(name.startswith("decoder.") for name in checkpoint.weights) else 1,
        "network_weights": _copy_once(checkpoint.weights),
        "architecture": checkpoint.architecture.to_plans(),
        "num_input_channels": checkpoint.num_input_channels,
        "preprocessing": checkpoint.preprocessing,
        "pretraining": checkpoint.pretraining,
        "provenance": checkpoint.provenance,
        "citations": citation_list(checkpoint.citations),
    }
    plan = adaptation_plan(
        checkpoint.architecture,
        num_input_channels=checkpoint.num_input_channels,
        preprocessing=checkpoint.preprocessing,
        pretraining=checkpoint.pretraining,
    )
    if plan is not None:
        content["nnssl_adaptation_plan"] = plan
    write_atomically(path, lambda temporary: torch.save(content, temporary))


def load_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read a checkpoint that `voco_pretrain` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is no checkpoint of this package or was written by a newer version of the format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a checkpoint such as OUT/voco_encoder.pth")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler or zip reader meets
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint of tensors and plain types ({type(error).__name__})"
        ) from error
    return checkpoint_from_content(content, path)


def checkpoint_from_content(content: Any, path: str | os.PathLike) -> Checkpoint:
    """Read what `torch.load` found in the file `path`, which is named in errors only.

    Raises:
        CheckpointError: As `load_checkpoint`.
    """
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of nnunetv2_voco (no format mark {FORMAT!r} inside)")
    version = content.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {version}; this nnunetv2_voco reads up to version {FORMAT_VERSION}. "
            "Update nnunetv2_voco"
        )
    try:
        return Checkpoint(
            weights=content["network_weights"],
            architecture=Architecture.from_plans(content["architecture"]),
            num_input_channels=content["num_input_channels"],
            preprocessing=content["preprocessing"],
            pretraining=content["pretraining"],
            provenance=content["provenance"],
            citations=tuple(text for entry in content["citations"] for text in entry["apa_citations"]),
        )
    except KeyError as error:
        raise CheckpointError(f"{path}: the checkpoint lacks {error}; it was changed after it was written") from None


def _copy_once(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy to memory of their own on the CPU; one tensor under two names stays one, so that the file holds it once."""
    copies: dict[tuple, torch.Tensor] = {}
    result = {}
    for name, tensor in weights.items():
        key = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
        result[name] = copies.setdefault(key, tensor.detach().cpu().clone())
    return result
