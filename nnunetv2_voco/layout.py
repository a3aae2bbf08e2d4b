"""Names of the parameters in nnU-Net's networks: which stage they belong to, which are the same tensor twice."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

SUFFIXES = ("conv.weight", "conv.bias", "norm.weight", "norm.bias")
"""The tensors of one convolution with its norm."""


def canonical_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict with each tensor once, under the name `named_parameters` would give it.

    A state dict of dynamic-network-architectures lists `conv` and `norm` a second time as `all_modules.0` and
    `all_modules.1`, and the whole encoder a second time under `decoder.encoder.`.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        name = re.sub(r"^decoder\.encoder\.", "encoder.", name)
        name = re.sub(r"\.all_modules\.0\.", ".conv.", name)
        name = re.sub(r"\.all_modules\.[1-9]\.", ".norm.", name)
        result.setdefault(name, tensor)
    return result


def stage_of(name: str, key_to_encoder: str, key_to_stem: str) -> str:
    """Name the part of the encoder that a parameter belongs to: "stem", "stage 0" (the finest) and so on."""
    if name.startswith(f"{key_to_encoder}."):
        head = name[len(key_to_encoder) + 1 :].split(".")[0]
        if head.isdigit():
            return f"stage {head}"
    return "stem" if name.startswith(f"{key_to_stem}.") else "encoder"


def family_of(names: Iterable[str]) -> str:
    """Tell "plain", "residual" and "bottleneck" encoders by the names of their parameters; "other" if none of them."""
    names = list(names)
    if any(".blocks." in name and ".conv3." in name for name in names):
        return "bottleneck"
    if any(".blocks." in name and ".conv1." in name for name in names):
        return "residual"
    return "plain" if any(".convs." in name for name in names) else "other"


def match_across_families(source: Iterable[str], targets: Iterable[str]) -> dict[str, str]:
    """Pair the convolutions of two encoders of different kinds, stage by stage, in the order they are computed.

    The stem counts as the first convolution of stage 0. Projections on residual paths have no partner.

    Returns:
        For names in the network the name in the checkpoint.
    """
    have, want = _convolutions_by_stage(source), _convolutions_by_stage(targets)
    pairs = [
        (new, old) for stage in want.keys() & have.keys() for new, old in zip(want[stage], have[stage], strict=False)
    ]
    return {f"{new}.{suffix}": f"{old}.{suffix}" for new, old in pairs for suffix in SUFFIXES}


def _convolutions_by_stage(names: Iterable[str]) -> dict[int, list[str]]:
    """Return prefixes such as "encoder.stages.0.0.convs.1" per stage, in order of computation."""
    result: dict[int, list[str]] = {}
    prefixes = [name.removesuffix(".conv.weight") for name in names if name.endswith(".conv.weight")]
    for prefix in sorted(prefixes, key=lambda text: (not text.startswith("encoder.stem."), _natural(text))):
        stage = re.match(r"encoder\.(?:stem|stages\.(\d+))\.", prefix)
        if stage and ".skip." not in prefix:
            result.setdefault(int(stage[1] or 0), []).append(prefix)
    return result


def _natural(text: str) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]
