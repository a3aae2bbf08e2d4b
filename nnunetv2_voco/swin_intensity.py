"""Bringing nnU-Net's normalised intensities back to those the authors' SwinUNETR models were trained on."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

WINDOW_HU = (-175.0, 250.0)
"""HU that became 0 and 1 in the authors' pre-training; values outside were clipped."""

Z_SCORES = (-3.0, 3.0)
"""What stands for 0 and 1 where a channel is normalised per image, so that no HU can be had back."""


class Rule(NamedTuple):
    """How one channel becomes what the network expects: `scale` times the value plus `offset`, clipped to [0, 1].

    Attributes:
        scale: Factor.
        offset: Summand.
        remark: What is preserved and what is lost, in words.
    """

    scale: float
    offset: float
    remark: str


class PretrainedIntensities(nn.Module):
    """Maps image channels to [0, 1] as in pre-training; label channels of a cascade, which come last, pass unchanged.

    Args:
        rules: One per image channel.
        num_label_channels: Channels after them.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, rules: Sequence[Rule], num_label_channels: int = 0) -> None:
        super().__init__()
        self.remarks = tuple(rule.remark for rule in rules)
        self.num_label_channels = num_label_channels
        shape = (1, len(rules), 1, 1, 1)
        self.register_buffer("scale", torch.tensor([rule.scale for rule in rules]).view(shape))
        self.register_buffer("offset", torch.tensor([rule.offset for rule in rules]).view(shape))

    @classmethod
    def for_plans(
        cls, schemes: Sequence[str], properties: Mapping[str, Mapping[str, float]], *, num_label_channels: int = 0
    ) -> "PretrainedIntensities":
        """Undo the normalisation that plans ask for.

        Args:
            schemes: `normalization_schemes` of a configuration.
            properties: `foreground_intensity_properties_per_channel` of the plans.
            num_label_channels: Channels after the image's.

        Raises:
            ValueError: If a channel's scheme is not known or lacks its statistics.
        """
        rules = [intensity_rule(scheme, properties.get(str(i), {}), channel=i) for i, scheme in enumerate(schemes)]
        return cls(rules, num_label_channels)

    def forward(self, data: Tensor) -> Tensor:
        """Map (batch, channels, three axes) of the plans' intensities to [0, 1]."""
        images = data[:, : data.shape[1] - self.num_label_channels]
        images = (images * self.scale + self.offset).clamp(0, 1)
        return torch.cat((images, data[:, images.shape[1] :]), dim=1) if self.num_label_channels else images


def intensity_rule(scheme: str, properties: Mapping[str, Any], *, channel: int = 0) -> Rule:
    """Return how the values that nnU-Net's `scheme` leaves become those of pre-training.

    Args:
        scheme: Name of nnU-Net's class.
        properties: Its statistics: `mean`, `std`, `percentile_00_5`, `percentile_99_5`.
        channel: Named in texts only.

    Raises:
        ValueError: If the scheme is not known or lacks its statistics.
    """
    low, high = WINDOW_HU
    if scheme == "CTNormalization":
        missing = [name for name in ("mean", "std", "percentile_00_5", "percentile_99_5") if name not in properties]
        if missing:
            raise ValueError(
                f"channel {channel}: the plans ask for CTNormalization but hold no {', '.join(missing)} in "
                "foreground_intensity_properties_per_channel; plan the dataset again with nnUNetv2_plan_experiment"
            )
        std = max(properties["std"], 1e-8)
        return Rule(
            std / (high - low),
            (properties["mean"] - low) / (high - low),
            f"channel {channel}: CTNormalization is undone to HU, {low:g}…{high:g} HU become 0…1"
            + _clipped(properties["percentile_00_5"], properties["percentile_99_5"]),
        )
    if scheme == "NoNormalization":
        remark = f"channel {channel}: taken for HU, as the plans do not normalise it; {low:g}…{high:g} HU become 0…1"
        return Rule(1 / (high - low), -low / (high - low), remark)
    if scheme == "RescaleTo01Normalization":
        remark = f"channel {channel}: the plans rescale each image to 0…1, which is passed on; pre-training saw CT"
        return Rule(1.0, 0.0, remark)
    if scheme == "ZScoreNormalization":
        low, high = Z_SCORES
        return Rule(
            1 / (high - low),
            -low / (high - low),
            f"channel {channel}: the plans normalise each image by itself, so HU cannot be had back; {low:g}…{high:g} "
            "standard deviations become 0…1. Pre-training saw CT; compare with the scratch twin",
        )
    raise ValueError(
        f"channel {channel}: normalisation {scheme} cannot be brought to the intensities that the SwinUNETR models "
        "were trained on; plan the channel as CT (CTNormalization) or with NoNormalization, ZScoreNormalization or "
        "RescaleTo01Normalization"
    )


def _clipped(lower_hu: float, upper_hu: float) -> str:
    """Say what the percentiles at which CTNormalization clips have taken from the window."""
    low, high = WINDOW_HU
    losses = []
    if lower_hu > low:
        losses.append(f"below {lower_hu:.0f} HU everything enters as {(lower_hu - low) / (high - low):.2f}")
    if upper_hu < high:
        losses.append(f"above {upper_hu:.0f} HU everything enters as {(upper_hu - low) / (high - low):.2f}")
    return f"; the plans had clipped, so {' and '.join(losses)}" if losses else ", exactly"
