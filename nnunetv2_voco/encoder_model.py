"""An encoder for other tasks than segmentation: a module with multi-scale features, and what it expects to see."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nnunetv2.preprocessing.normalization import default_normalization_schemes
from torch import Tensor, nn

from nnunetv2_voco.checkpoint import Checkpoint, CheckpointError
from nnunetv2_voco.encoder import (
    Architecture,
    build_network,
    check_input_size,
    embedding_size,
    plain_architecture,
    residual_architecture,
)
from nnunetv2_voco.features import features_at, pooled_embedding
from nnunetv2_voco.foreign import ForeignCheckpoint, open_checkpoint
from nnunetv2_voco.layout import canonical_weights, family_of
from nnunetv2_voco.transfer import load_encoder


@dataclass(frozen=True, kw_only=True)
class InputContract:
    """What an encoder expects to see; None where the checkpoint does not say it.

    Attributes:
        channels: Input channels.
        stride: Each edge of an input must be a multiple of it, (z, y, x).
        spacing_mm: Distance of voxels along the axes of the array.
        orientation: What the axes (z, y, x) are before `transpose`: "LPS" means that x grows to the patient's left,
            y to the back, z to the head.
        transpose: Order in which those axes stand in the array, as `transpose_forward` in nnU-Net's plans.
        normalization_scheme: Name of nnU-Net's normalisation class.
        intensity_properties: Its statistics; empty where it takes its own from each volume.
        use_mask_for_norm: Whether it normalises within the non-zero region only.
        crop_size: Edge lengths of the crops of pre-training, in voxels: the context that the encoder is used to.
    """

    channels: int
    stride: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None = None
    orientation: str | None = None
    transpose: tuple[int, int, int] = (0, 1, 2)
    normalization_scheme: str | None = None
    intensity_properties: Mapping[str, float]
    use_mask_for_norm: bool = False
    crop_size: tuple[int, int, int] | None = None

    def __str__(self) -> str:
        def times(values: Any) -> str:
            return "unknown" if values is None else " × ".join(f"{value:g}" for value in values)

        statistics = "".join(f", {name} {value:g}" for name, value in self.intensity_properties.items())
        return (
            f"{self.channels} channel(s), {times(self.spacing_mm)} mm (z, y, x), orientation "
            f"{self.orientation or 'unknown'}, {self.normalization_scheme or 'unknown normalisation'}{statistics}; "
            f"edges a multiple of {times(self.stride)} voxels, pre-trained on crops of {times(self.crop_size)}"
        )


class EncoderModel(nn.Module):
    """A pre-trained encoder, to be called or trained as any module.

    Args:
        encoder: The encoder of a network of nnU-Net.
        architecture: That network.
        contract: What the encoder expects.

    Attributes:
        contract: The same.
        features: Channels of each stage.
        strides: Voxels of the input per element of each stage, (z, y, x).
    """

    def __init__(self, encoder: nn.Module, architecture: Architecture, contract: InputContract) -> None:
        super().__init__()
        self.encoder = encoder
        self.architecture = architecture
        self.contract = contract
        self.features = architecture.features
        self.strides: tuple[tuple[int, ...], ...] = tuple(map(tuple, architecture.strides.cumprod(axis=0).tolist()))

    @property
    def embedding_size(self) -> int:
        """Length of an embedding: the channels of all stages."""
        return embedding_size(self.architecture)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the feature maps (N, C, z, y, x) of every stage, finest first.

        Args:
            image: float32 (N, channels, z, y, x), as `contract` says.

        Raises:
            ValueError: If channels or size do not fit.
        """
        if image.ndim != 5 or image.shape[1] != self.contract.channels:
            raise ValueError(
                f"image of shape {tuple(image.shape)}: (N, {self.contract.channels}, z, y, x) is expected; "
                "a single volume needs image[None, None]"
            )
        check_input_size(self.architecture, tuple(image.shape[2:]))
        return self.encoder(image)

    def embed(self, image: Tensor) -> Tensor:
        """Return one embedding for each image: the mean of every channel of every stage, float32 (N, E)."""
        return pooled_embedding(self(image))

    def embed_places(self, image: Tensor, places_vox: np.ndarray) -> Tensor:
        """Return the features of all stages at places (N, 3) of one image (1, channels, z, y, x), float32 (N, E)."""
        return features_at(self(image), places_vox, image.shape[2:])

    def untrained(self, seed: int) -> "EncoderModel":
        """Return the same encoder with random weights, the bar that a pre-trained one has to pass."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build_network(self.architecture, num_input_channels=self.contract.channels)
        return EncoderModel(network.get_submodule("encoder"), self.architecture, self.contract).eval()

    def normalise(self, volume: np.ndarray) -> Tensor:
        """Normalise as in pre-training.

        Args:
            volume: (z, y, x), or with leading axes, in Hounsfield units for a CT encoder, at `contract.spacing_mm`.
                Other modalities take their statistics from it, so that it must be a whole volume.

        Returns:
            float32 of the same shape.

        Raises:
            ValueError: If the checkpoint does not say how.
        """
        scheme = getattr(default_normalization_schemes, self.contract.normalization_scheme or "", None)
        if scheme is None:
            raise ValueError(
                f"the checkpoint names no normalisation of nnU-Net ({self.contract.normalization_scheme}); "
                "normalise the image as its authors did"
            )
        normaliser = scheme(
            use_mask_for_norm=self.contract.use_mask_for_norm,
            intensityproperties=dict(self.contract.intensity_properties),
        )
        segmentation = np.where(volume == 0, -1, 0).astype(np.int8)  # nnU-Net marks the outside by -1
        return torch.from_numpy(normaliser.run(np.array(volume, np.float32), segmentation))


def load_encoder_model(checkpoint: str | os.PathLike, *, architecture: Architecture | None = None) -> EncoderModel:
    """Load a pre-trained encoder for any task.

    Args:
        checkpoint: File, or "hf://owner/name[/file]"; all that fine-tuning reads.
        architecture: The network, for files that do not describe it. Without it, nnU-Net's plain network, or its
            residual one, of isotropic kernels and strides is tried.

    Returns:
        The encoder in evaluation mode.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no encoder, or weights and architecture do not fit.
    """
    opened = open_checkpoint(checkpoint)
    weights = canonical_weights(opened.weights)
    architecture = architecture or opened.architecture or _likely_architecture(weights, checkpoint)
    channels = _input_channels(weights)
    network = build_network(architecture, num_input_channels=channels)
    report = load_encoder(network, opened, minimum_share=0)
    if report.unused or any(record.state != "copied" for record in report.encoder):
        raise CheckpointError(f"{checkpoint}: weights and network differ; name the right architecture\n{report}")
    contract = _contract(opened, channels, architecture)
    return EncoderModel(network.get_submodule("encoder"), architecture, contract).eval()


def _input_channels(weights: Mapping[str, Tensor]) -> int:
    """Return the channels of the first convolution."""
    return next(t.shape[1] for name, t in weights.items() if name.startswith("encoder.") and t.ndim == 5)


def _likely_architecture(weights: Mapping[str, Tensor], checkpoint: str | os.PathLike) -> Architecture:
    """Return nnU-Net's default network of as many stages and features as the weights show."""
    names = [name for name in weights if name.startswith("encoder.stages.")]
    features: dict[str, int] = {}
    blocks: dict[str, set[str]] = {}
    for name in names:
        stage, inner = name.split(".")[2], name.split(".")
        if weights[name].ndim == 5:
            features[stage] = weights[name].shape[0]
            blocks.setdefault(stage, set()).add(inner[4])
    widths = tuple(features.values())
    family = family_of(name for name in weights if name.startswith("encoder."))
    if family == "plain" and widths:
        return plain_architecture(widths)
    if family == "residual" and widths:
        return residual_architecture(widths, tuple(len(found) for found in blocks.values()))
    raise CheckpointError(
        f"{checkpoint}: the file does not describe its network; give load_encoder_model an architecture"
    )


def _contract(opened: Checkpoint | ForeignCheckpoint, channels: int, architecture: Architecture) -> InputContract:
    z, y, x = (int(n) for n in architecture.total_stride)
    if isinstance(opened, ForeignCheckpoint):
        return InputContract(channels=channels, stride=(z, y, x), intensity_properties={})
    before = opened.preprocessing
    return InputContract(
        channels=channels,
        stride=(z, y, x),
        spacing_mm=_triple(before.get("spacing_mm")),
        orientation=before.get("orientation"),
        transpose=_triple(before.get("transpose")) or (0, 1, 2),
        normalization_scheme=before.get("normalization_scheme"),
        intensity_properties=before.get("intensity_properties") or {},
        use_mask_for_norm=bool(before.get("use_mask_for_norm", False)),
        crop_size=_triple(opened.pretraining.get("crop_size")),
    )


def _triple(values: Any) -> Any:
    return None if values is None else tuple(values)
