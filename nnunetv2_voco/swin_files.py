"""The authors' SwinUNETR files: their names, how to recognise them, and where a user gets them."""

from collections.abc import Iterable, Mapping

from torch import Tensor

FEATURE_SIZES = {"B": 48, "L": 96, "H": 192}
"""Size of the published models → MONAI's `feature_size`."""

PUBLISHED = {size: (f"VoCo_{size}_SSL_head.pt", f"VoComni_{size}.pt") for size in FEATURE_SIZES}
"""Names of the authors' files: self-supervised (encoder and projectors) and omni-supervised (whole network)."""

HOME = "hf://Luffy503/VoCo"
"""Where the authors keep them."""

PATCH_EMBEDDING = "swinViT.patch_embed.proj.weight"
"""The tensor whose width tells the size."""

ENCODER = ("swinViT.", "encoder1.", "encoder2.", "encoder3.", "encoder4.", "encoder10.")
DECODER = ("decoder1.", "decoder2.", "decoder3.", "decoder4.", "decoder5.")
"""Modules of MONAI's SwinUNETR; what remains is `out`, its segmentation layer."""

WRAPPERS = ("module.", "_orig_mod.", "backbone.", "model.", "net.", "network.")
"""Prefixes which training code puts before MONAI's own names."""


def is_swin(names: Iterable[str]) -> bool:
    """Whether these are names of a SwinUNETR's parameters, wrapped or not."""
    return any(f".{name}".endswith(f".{PATCH_EMBEDDING}") for name in names)


def swin_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name the tensors as MONAI's network does; projectors keep their own names."""
    result = {}
    for name, tensor in weights.items():
        while name.startswith(WRAPPERS):
            name = name.split(".", 1)[1]
        result[name] = tensor
    return result


def feature_size(weights: Mapping[str, Tensor]) -> int:
    """Return MONAI's `feature_size` of a SwinUNETR's weights."""
    return int(weights[PATCH_EMBEDDING].shape[0])


def swin_size(weights: Mapping[str, Tensor]) -> str:
    """Return "B", "L" or "H", or the feature size if it is no published one."""
    width = feature_size(weights)
    return next((size for size, features in FEATURE_SIZES.items() if features == width), str(width))


def swin_trainer(weights: Mapping[str, Tensor]) -> str:
    """Name the trainer that takes these weights, or say how to make one if they are of no published size."""
    size = swin_size(weights)
    if size in FEATURE_SIZES:
        return f"nnUNetTrainerVoCoSwin_{size}"
    return f"a subclass of nnUNetTrainerVoCoSwin_B with feature_size = {size}"


def where_to_get(file: str) -> str:
    """Say where a file of the authors is; empty if `file` is none of theirs."""
    names = {name for files in PUBLISHED.values() for name in files} | {"VoComni_nnunet.pt"}
    return (
        f" ({file} is published at https://huggingface.co/Luffy503/VoCo: download it, or give {HOME}/{file})"
        if file in names
        else ""
    )
