"""Augmentation of single crops, as batchgeneratorsv2 transforms: flips, quarter turns, intensity shift."""

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.rot90 import Rot90Transform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

MIRROR_FIRES = 0.5
"""Probability with which batchgeneratorsv2's MirrorTransform flips an allowed axis."""


class IntensityShiftTransform(ImageOnlyTransform):
    """Adds one random offset to the whole image, uniform in ±`amplitude`.

    Args:
        amplitude: Largest offset, in units of the normalised image.
    """

    def __init__(self, amplitude: float) -> None:
        super().__init__()
        self.amplitude = amplitude

    def get_parameters(self, **data_dict: object) -> dict:
        """Draw the offset."""
        return {"offset": (2 * torch.rand(1).item() - 1) * self.amplitude}

    def _apply_to_image(self, img: torch.Tensor, **params: float) -> torch.Tensor:
        return img + params["offset"]


def crop_transforms(
    *,
    shift_amplitude: float,
    isotropic_plane: bool,
    p_flip: float = 0.2,
    p_rotate: float = 0.2,
    p_shift: float = 0.5,
) -> BasicTransform:
    """Build the published augmentation of a crop.

    Args:
        shift_amplitude: A tenth of the intensity window, in units of the normalised image.
        isotropic_plane: Whether the last two axes have equal spacing and crops equal edges there; only then are
            crops turned by 90°.
        p_flip: Probability of a flip, for each axis.
        p_rotate: Probability of a quarter, half or three-quarter turn.
        p_shift: Probability of an intensity shift.

    Returns:
        A transform for images of shape (channels, z, y, x). It draws from torch's and numpy's global generators.
    """
    transforms: list[BasicTransform] = [
        RandomTransform(MirrorTransform((axis,)), apply_probability=p_flip / MIRROR_FIRES) for axis in range(3)
    ]
    if isotropic_plane:
        quarter_turns = Rot90Transform(num_axis_combinations=1, num_rot_per_combination=(1, 2, 3), allowed_axes={1, 2})
        transforms.append(RandomTransform(quarter_turns, apply_probability=p_rotate))
    transforms.append(RandomTransform(IntensityShiftTransform(shift_amplitude), apply_probability=p_shift))
    return ComposeTransforms(transforms)
