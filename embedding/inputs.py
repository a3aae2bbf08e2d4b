"""What raw volumes are brought to before an encoder sees them, from the contract of the encoder."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nnunetv2_voco.encoder_model import EncoderModel, InputContract
from nnunetv2_voco.pretrain.intensity import (
    CT_SCHEME,
    Intensity,
    ct_intensity,
    stored_intensity,
    window_properties,
)
from nnunetv2_voco.pretrain.preprocess import Target

DEFAULT_WINDOW = 64
"""Edge in voxels of a window where the checkpoint does not say how large the crops of pre-training were."""


def complete_contract(
    contract: InputContract,
    *,
    spacing_mm: tuple[float, float, float] | None = None,
    window_hu: tuple[float, float] | None = None,
) -> InputContract:
    """Return the contract with what the user adds, where a checkpoint does not describe its input.

    Raises:
        ValueError: If something is still missing, or the encoder does not take single-channel images.
    """
    if contract.channels != 1:
        raise ValueError(f"the encoder takes {contract.channels} channels; raw volumes have one")
    if spacing_mm is not None:
        contract = replace(contract, spacing_mm=spacing_mm)
    if window_hu is not None:
        contract = replace(contract, normalization_scheme=CT_SCHEME, intensity_properties=window_properties(window_hu))
    if contract.spacing_mm is None:
        raise ValueError("the checkpoint does not say its spacing; give --spacing Z,Y,X in mm")
    if contract.normalization_scheme is None:
        raise ValueError(
            "the checkpoint does not say its normalisation; give --window LOW,HIGH in HU, as it was trained"
        )
    return contract


def target_of(contract: InputContract) -> Target:
    """Return what volumes are brought to; equal to that of the pre-training, so that a cache is shared."""
    assert contract.spacing_mm is not None
    is_ct = contract.normalization_scheme == CT_SCHEME
    return Target(
        spacing_mm=contract.spacing_mm,
        transpose=contract.transpose,
        normalization=None if is_ct else contract.normalization_scheme,
        use_mask_for_norm=contract.use_mask_for_norm and not is_ct,
    )


def intensity_of(contract: InputContract) -> Intensity:
    """Return the normalisation of stored volumes."""
    if contract.normalization_scheme == CT_SCHEME:
        return ct_intensity(dict(contract.intensity_properties))
    return stored_intensity(str(contract.normalization_scheme))


def window_size(model: EncoderModel, asked: Sequence[int] | None) -> tuple[int, int, int]:
    """Return the edge lengths of a window: as asked, else the crops of pre-training, else 64 voxels or so."""
    stride = np.array(model.contract.stride)
    default = np.maximum(1, np.rint(DEFAULT_WINDOW / stride)) * stride
    z, y, x = (int(n) for n in asked or model.contract.crop_size or default)
    return z, y, x
