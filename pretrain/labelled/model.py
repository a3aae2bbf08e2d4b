"""The whole segmentation network in pre-training: alone, or around the encoder that VoCo trains."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnunetv2_voco.encoder import Architecture, build_network
from nnunetv2_voco.pretrain.dataset import Sample
from nnunetv2_voco.pretrain.labelled.loss import SegmentationLoss
from nnunetv2_voco.pretrain.labelled.patches import LabelledPatch
from nnunetv2_voco.pretrain.model import VoCoModel


class RecipeLoss(NamedTuple):
    """The terms of a training step and their weighted sum, scalars; 0 for what the recipe or step leaves out."""

    intra: Tensor
    inter: Tensor
    reg: Tensor
    place: Tensor
    labelled: Tensor
    pseudo: Tensor
    total: Tensor


class SegmentationModel(nn.Module):
    """A segmentation network, with VoCo's projectors and loss on its encoder if the recipe contrasts.

    Args:
        architecture: The network.
        num_classes: Its outputs, with background.
        annotated: For each labelled set, and each class, whether the set annotates the class.
        voco: VoCo's model, whose encoder becomes the network's.
        processes: Number of processes that train.
    """

    encoder: Any
    decoder: Any

    def __init__(
        self,
        architecture: Architecture,
        *,
        num_classes: int,
        annotated: Sequence[Sequence[bool]],
        voco: VoCoModel | None = None,
        processes: int = 1,
    ) -> None:
        super().__init__()
        network: Any = build_network(
            architecture, num_input_channels=1, num_output_channels=num_classes, deep_supervision=True
        )
        network.encoder.return_skips = True
        if voco is not None:
            network.encoder = network.decoder.encoder = voco.encoder
        self.voco, self.encoder, self.decoder = voco, network.encoder, network.decoder
        everything = [True] * num_classes  # a pseudo-label knows all classes
        self.loss = SegmentationLoss([*annotated, everything], scales=len(network.decoder.stages), processes=processes)
        self.pseudo_set = len(annotated)

    def network_weights(self) -> dict[str, Tensor]:
        """State dict of the segmentation network, each tensor under one name, as in the whole network."""
        decoder = {name: t for name, t in self.decoder.state_dict().items() if not name.startswith("encoder.")}
        return {
            **{f"encoder.{name}": tensor for name, tensor in self.encoder.state_dict().items()},
            **{f"decoder.{name}": tensor for name, tensor in decoder.items()},
        }

    def segment(self, images: Tensor, *, detached: bool = False) -> list[Tensor]:
        """Pass images (N, 1, z, y, x) through the network; logits (N, C, …) of each scale, finest first.

        Args:
            images: Normalised.
            detached: Keep the gradient from the encoder.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not detached):
            feature_maps = self.encoder(images)
        return self.decoder(feature_maps)

    def forward(
        self,
        unlabelled: Sample | None,
        labelled: LabelledPatch | None,
        pseudo: tuple[Tensor, Tensor] | None,
        *,
        voco_arguments: dict,
        labelled_weight: float,
        pseudo_weight: float,
        detached: bool,
        chunk: int | None = None,
    ) -> RecipeLoss:
        """Compute the loss of a step.

        Args:
            unlabelled: Crops for VoCo's loss.
            labelled: Patches with labels.
            pseudo: Images (M, 1, z, y, x) and classes (M, 1, z, y, x) given to them.
            voco_arguments: See `VoCoModel.forward`.
            labelled_weight: Weight of the loss on labelled patches.
            pseudo_weight: Weight of the loss on pseudo-labelled images.
            detached: Whether pseudo-labels train the decoder alone.
            chunk: Patches that pass the network at once; all when None.
        """
        zero = next(self.encoder.parameters()).new_zeros(())
        intra, inter, reg, place, total = (zero,) * 5
        if self.voco is not None and unlabelled is not None:
            intra, inter, reg, place, _, total = self.voco(*unlabelled, **voco_arguments)
        labelled_loss = pseudo_loss = zero
        if labelled is not None:
            labelled_loss = self._loss_of(labelled.image, labelled.targets, labelled.set_index, chunk=chunk)
        if pseudo is not None:
            images, classes = pseudo
            targets = coarser(classes, self.segment_sizes(images))
            sets = torch.full((len(images),), self.pseudo_set, device=images.device)
            pseudo_loss = self._loss_of(images, targets, sets, chunk=chunk, detached=detached)
        total = total + labelled_weight * labelled_loss + pseudo_weight * pseudo_loss
        return RecipeLoss(intra, inter, reg, place, labelled_loss, pseudo_loss, total)

    def segment_sizes(self, images: Tensor) -> list[tuple[int, ...]]:
        """Edge lengths of the outputs for `images`, finest first."""
        size, sizes = tuple(images.shape[2:]), []
        for stride in self.encoder.strides[:-1]:
            size = tuple(n // s for n, s in zip(size, stride, strict=True))
            sizes.append(size)
        return sizes

    def _loss_of(
        self, images: Tensor, targets: Sequence[Tensor], sets: Tensor, *, chunk: int | None, detached: bool = False
    ) -> Tensor:
        def loss(images: Tensor, sets: Tensor, *targets: Tensor) -> Tensor:
            return self.loss(self.segment(images, detached=detached), targets, sets)

        if chunk is None or chunk >= len(images):
            return loss(images, sets, *targets)
        parts = zip(*(tensor.split(chunk) for tensor in (images, sets, *targets)), strict=True)
        losses = [checkpoint(loss, *part, use_reentrant=False) * (len(part[0]) / len(images)) for part in parts]
        return torch.stack(losses).sum()


def coarser(classes: Tensor, sizes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Bring labels (N, 1, z, y, x) to each of the sizes, by the nearest voxel as nnU-Net does for deep supervision."""
    return [nn.functional.interpolate(classes.float(), tuple(size), mode="nearest-exact").to(classes) for size in sizes]


class FrozenLabeller(nn.Module):
    """A frozen copy of a network that gives classes to unlabelled crops.

    Args:
        model: The network as it is now.
    """

    decoder: Any

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.decoder = copy.deepcopy(model.decoder)  # holds the encoder, too
        self.decoder.deep_supervision = False
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, images: Tensor, autocast: Callable[[], torch.autocast], chunk: int | None = None) -> Tensor:
        """Return the most probable class of each voxel, int64 (N, 1, z, y, x)."""
        parts = images.split(chunk or len(images))
        with autocast():
            logits = [self.decoder(self.decoder.encoder(part)) for part in parts]
        return torch.cat([part.argmax(dim=1, keepdim=True) for part in logits])
