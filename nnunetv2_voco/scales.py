"""Sizes of nnU-Net's plain network: one named rule that scales width and depth together."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # command lines take their choices from here, and their --help must be instant
    from nnunetv2_voco.encoder import Architecture


class Scale(NamedTuple):
    """A size.

    Attributes:
        width: Factor for the channels of every stage.
        convolutions: Convolutions in every stage of encoder and decoder.
    """

    width: float
    convolutions: int


SCALES = {"S": Scale(0.5, 2), "B": Scale(1.0, 2), "L": Scale(1.5, 3), "H": Scale(2.0, 4)}
"""B is nnU-Net's own. From B on, width and depth grow by the same factor: parameters and FLOPs with its third power,
activations with its second. S has half the width: a quarter of B's parameters and FLOPs, half of its activations."""

_MULTIPLE = 8
"""Channels are rounded to multiples of this, as GPUs like them; fewer channels are left as they come out."""


def scaled(architecture: "Architecture", scale: str) -> "Architecture":
    """Return a plain network in another size; kernels, strides and the number of stages stay.

    Args:
        architecture: nnU-Net's plain network, counted as size B.
        scale: A key of `SCALES`.

    Raises:
        ValueError: If the scale is unknown or the network is residual.
    """
    if scale not in SCALES:
        raise ValueError(f"scale {scale!r}: must be one of {', '.join(SCALES)}")
    if architecture.is_residual:
        raise ValueError(
            f"scale {scale}: is a rule for nnU-Net's plain network, this one is residual; nnU-Net's own sizes of it "
            "are resenc-m, resenc-l and resenc-xl"
        )
    width, convolutions = SCALES[scale]
    if scale == "B":
        return architecture
    block = architecture.with_features(tuple(_channels(f * width) for f in architecture.features)).to_plans()
    n_stages = architecture.n_stages
    block["arch_kwargs"]["n_conv_per_stage"] = [convolutions] * n_stages
    block["arch_kwargs"]["n_conv_per_stage_decoder"] = [convolutions] * (n_stages - 1)
    return type(architecture).from_plans(block)


def _channels(count: float) -> int:
    return max(1, round(count / _MULTIPLE) * _MULTIPLE if count >= 2 * _MULTIPLE else round(count))
