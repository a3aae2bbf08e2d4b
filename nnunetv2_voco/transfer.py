"""Loading pre-trained encoder weights into whatever network nnU-Net planned, with an account of every parameter.

The networks say themselves where their encoder is (`key_to_encoder`, `key_to_stem`, `keys_to_in_proj`, the contract of
dynamic-network-architectures). Stages are matched by number, finest first, and within a stage convolutions and blocks
by position; `nnunetv2_voco.adapt` fits the shapes.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from nnunetv2_voco.adapt import CannotAdapt, adapt
from nnunetv2_voco.classes import matching_outputs
from nnunetv2_voco.encoder import Architecture
from nnunetv2_voco.layout import canonical_weights, family_of, match_across_families, stage_of
from nnunetv2_voco.report import TensorRecord, TransferReport
from nnunetv2_voco.swin_files import is_swin, swin_trainer

MINIMUM_SHARE = 0.5
"""Below this share of the encoder's parameters a transfer is refused unless insisted on."""


SEGMENTATION_LAYERS = "decoder.seg_layers."


class TransferError(ValueError):
    """The weights do not fit the network, or too little of them does."""


class Contract(NamedTuple):
    """Where a network keeps its encoder, by its own account.

    Attributes:
        key_to_encoder: Name of the module that holds the stages.
        key_to_stem: Name of the module that comes first, inside the encoder or before it.
        keys_to_in_proj: Names under which the convolution is registered that meets the image.
    """

    key_to_encoder: str
    key_to_stem: str
    keys_to_in_proj: tuple[str, ...]


class Pretrained(Protocol):
    """What a transfer needs to know: weights named as in the whole network, and their architecture if known."""

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """State dict, names as in the whole network ("encoder.stages.0…")."""

    @property
    def architecture(self) -> Architecture | None:
        """The network the weights belong to, if known."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the decoder's outputs, background first, if known."""


def unwrap(network: nn.Module) -> nn.Module:
    """Return the module inside `DistributedDataParallel` and `torch.compile` wrappers, in whatever order they are."""
    while True:
        if isinstance(network, nn.parallel.DistributedDataParallel):
            network = network.module
        elif isinstance(network, torch._dynamo.OptimizedModule):
            network = network._orig_mod
        else:
            return network


def contract_of(network: nn.Module) -> Contract:
    """Ask a network where its encoder is.

    Raises:
        TransferError: If it does not say.
    """
    missing = [key for key in Contract._fields if not hasattr(network, key)]
    if missing:
        raise TransferError(
            f"{type(network).__name__} does not say where its encoder is (no {', '.join(missing)}); "
            "weights can be loaded into PlainConvUNet, ResidualEncoderUNet and networks with the same contract"
        )
    return Contract(*(getattr(network, key) for key in Contract._fields))


def encoder_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return the saved parameters and buffers of the network's encoder, stem included, each once under its first name.

    dynamic-network-architectures registers every convolution twice (`conv` and `all_modules.0`) and the encoder again
    inside the decoder; `named_parameters` gives each tensor once.

    Raises:
        TransferError: If the network does not say where its encoder is.
    """
    network = unwrap(network)
    contract = contract_of(network)
    roots = (f"{contract.key_to_encoder}.", f"{contract.key_to_stem}.")
    saved = network.state_dict().keys()
    return {name: tensor for name, tensor in _tensors(network).items() if name in saved and name.startswith(roots)}


def load_encoder(
    network: nn.Module,
    checkpoint: Pretrained,
    *,
    num_label_channels: int = 0,
    decoder: bool = False,
    classes: Sequence[str] = (),
    across_families: bool = False,
    minimum_share: float = MINIMUM_SHARE,
) -> TransferReport:
    """Fill the encoder of `network` with the weights of `checkpoint`, in place.

    Nothing is changed when an error is raised.

    Args:
        network: A network of nnU-Net, wrapped or not.
        checkpoint: What `nnunetv2_voco.foreign.open_checkpoint` returns.
        num_label_channels: Input channels, at the end, which hold the labels of a cascade's previous stage.
        decoder: Also transfer the decoder's tensors of equal shape, if both networks have as many decoder stages.
        classes: Names of the network's outputs, background first. With `decoder`, the segmentation layers' weights for
            classes of the same name are transferred, too.
        across_families: Allow plain weights in a residual network and the reverse. Convolutions are then matched in the
            order in which they are computed; no output is preserved.
        minimum_share: Share of the encoder's parameters that must come from the checkpoint.

    Returns:
        What was done with every tensor.

    Raises:
        TransferError: If the network is 2D or has no known encoder, if the families differ or the weights are a
            SwinUNETR's, if too little fits, or if weights are not finite.
    """
    if is_swin(checkpoint.weights):
        raise TransferError(
            "the checkpoint is a SwinUNETR, which the planned network is not; take "
            f"-tr {swin_trainer(checkpoint.weights)}"
        )
    network = unwrap(network)
    contract = contract_of(network)
    targets = encoder_tensors(network)
    _refuse_2d(network.get_parameter(f"{contract.keys_to_in_proj[0]}.weight"))
    source = canonical_weights(checkpoint.weights)
    source_name = _match_names(source, targets, across_families)
    projections = {f"{key}.weight" for key in contract.keys_to_in_proj}
    exact_only = family_of(targets) == "other"

    new: dict[str, Tensor] = {}
    records = []
    for name, target in targets.items():
        origin = source.get(source_name.get(name, ""))
        stage = stage_of(name, contract.key_to_encoder, contract.key_to_stem)
        size = target.numel() if isinstance(target, nn.Parameter) else 0
        if origin is None:
            records.append(TensorRecord(name=name, stage=stage, size=size, loaded=0, reason="not in the checkpoint"))
            continue
        try:
            if exact_only and origin.shape != target.shape:
                raise CannotAdapt("only equal shapes can be transferred into this kind of network")
            new[name], loaded, rules = adapt(
                origin, target, is_input_projection=name in projections, num_label_channels=num_label_channels
            )
        except CannotAdapt as error:
            records.append(TensorRecord(name=name, stage=stage, size=size, loaded=0, reason=str(error)))
        else:
            records.append(TensorRecord(name=name, stage=stage, size=size, loaded=min(loaded, size), rules=rules))

    used = {source_name[name] for name in new}
    report = TransferReport(
        encoder=tuple(records),
        decoder=tuple(
            _decoder_records(network, source, new, matching_outputs(checkpoint.classes, classes)) if decoder else ()
        ),
        unused=tuple(name for name in source if name.startswith("encoder.") and name not in used),
        notes=tuple(_stride_notes(network, checkpoint.architecture)),
    )
    fill(network, new, report, minimum_share=minimum_share)
    return report


def fill(network: nn.Module, new: Mapping[str, Tensor], report: TransferReport, *, minimum_share: float) -> None:
    """Copy `new` into the tensors of those names, in place, if they are sound and enough.

    Raises:
        TransferError: If values are not finite or too small a share of the encoder comes from the checkpoint. Nothing
            is changed then.
    """
    broken = [name for name, tensor in new.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise TransferError(
            f"the checkpoint holds values that are not finite, first in {broken[0]}; the run had diverged"
        )
    if report.share < minimum_share:
        raise TransferError(
            f"only {report.share:.1%} of the encoder's parameters would come from the checkpoint, at least "
            f"{minimum_share:.0%} are expected; pre-train with this dataset's plans (voco_pretrain -d), or insist "
            f"(nnUNet_voco_insist=1, or voco_plan --insist)\n{report}"
        )
    with torch.no_grad():
        tensors = _tensors(network)
        for name, tensor in new.items():
            tensors[name].copy_(tensor)


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _refuse_2d(weight: Tensor) -> None:
    if weight.ndim != 5:
        raise TransferError(
            f"this is a {weight.ndim - 2}D network, the weights are 3D; take a 3D configuration (3d_fullres, 3d_lowres)"
        )


def _match_names(source: dict[str, Tensor], targets: dict[str, Tensor], across_families: bool) -> dict[str, str]:
    """Return for names in the network the name in the checkpoint."""
    have, want = family_of(name for name in source if name.startswith("encoder.")), family_of(targets)
    if have == want or "other" in (have, want):
        return {name: name for name in targets}
    if not across_families:
        raise TransferError(
            f"the checkpoint has a {have} encoder, the plan a {want} one; take plans of the same kind, or ask for it "
            "all the same (nnUNet_voco_across_families=1, or voco_plan --across_families)"
        )
    return match_across_families(source, targets)


def _decoder_records(
    network: nn.Module, source: dict[str, Tensor], new: dict[str, Tensor], outputs: Sequence[tuple[int, int]]
) -> list[TensorRecord]:
    """Add the decoder's fitting tensors to `new` and account for all; of segmentation layers the outputs that match."""
    targets = {name: tensor for name, tensor in network.named_parameters() if name.startswith("decoder.")}
    depths = [
        len({name.split(".")[2] for name in names if name.startswith("decoder.transpconvs.")})
        for names in (source, targets)
    ]
    records = []
    for name, target in targets.items():
        segments = name.startswith(SEGMENTATION_LAYERS)
        if segments and not outputs:
            continue
        loaded = 0
        rules: tuple[str, ...] = ()
        if depths[0] == depths[1] and name in source:
            if segments and source[name].shape[1:] == target.shape[1:]:
                new[name], loaded, rules = _matching_rows(source[name], target, outputs)
            elif source[name].shape == target.shape:
                new[name], loaded = source[name], target.numel()
        reason = "" if loaded else "not in the checkpoint, or of another shape"
        records.append(
            TensorRecord(name=name, stage="decoder", size=target.numel(), loaded=loaded, rules=rules, reason=reason)
        )
    return records


def _matching_rows(
    source: Tensor, target: Tensor, outputs: Sequence[tuple[int, int]]
) -> tuple[Tensor, int, tuple[str, ...]]:
    """Fill the outputs that match; the tensor, how much of it comes from `source`, and what was done, in words."""
    result = target.detach().clone()
    theirs, ours = (list(indices) for indices in zip(*outputs, strict=True))
    result[ours] = source[theirs].to(result)
    complete = len(ours) == len(source) == len(target) and theirs == ours
    rules = () if complete else (f"{len(ours)} of {len(target)} classes by name",)
    return result, result[ours].numel(), rules


def _stride_notes(network: nn.Module, architecture: Architecture | None) -> list[str]:
    """Name the stages that now see another resolution; their weights fit all the same."""
    planned = getattr(getattr(network, "encoder", None), "strides", None)
    if architecture is None or planned is None:
        return []
    pairs = zip(architecture.strides.tolist(), planned, strict=False)
    return [
        f"stage {stage}: stride {tuple(old)} in pre-training, {tuple(new)} in the plan"
        for stage, (old, new) in enumerate(pairs)
        if tuple(old) != tuple(new)
    ]
