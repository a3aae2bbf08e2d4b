"""Where the patient is: the body in a CT, without table, clothes and surrounding air.

Arrays and images here are SimpleITK's, oriented LPS; masks leave as SimpleITK images on a coarse grid.
"""

import SimpleITK as sitk

COARSE_MM = 4.0
"""Edge of the voxels on which the body is found; averaging to it also removes noise."""

TISSUE_HU = -400
"""Between lung (below −600) and soft tissue (above −150)."""

OPENING_MM = 8.0
"""Radius by which a table or blanket is cut off the skin."""

CLOSED_SIDE = 0.3
"""A side of the image that shows this share of tissue cuts through the body; cavities open to it count as inside."""


def find_body(image: sitk.Image) -> sitk.Image:
    """Find the body in a CT.

    The largest connected piece of tissue after an opening, its cavities filled slice by slice. Where the image cuts
    through the body, as in a crop of one lung, cavities that are open towards that side are filled as well.

    Args:
        image: CT in HU, int16, axes along LPS.

    Returns:
        A mask, uint8, on a grid of about `COARSE_MM`; covers the body and a rim of one voxel. If there is no tissue at
        all, everything is body.
    """
    coarse = sitk.Cast(_shrink(image), sitk.sitkFloat32)
    tissue = coarse > TISSUE_HU
    radius = [max(0, round(OPENING_MM / spacing)) for spacing in coarse.GetSpacing()[:2]] + [0]
    opened = sitk.BinaryMorphologicalOpening(tissue, radius, sitk.sitkBall)
    largest = _largest_piece(opened)
    if largest is None:
        return _everything(coarse)
    # what the opening took off the body's own outline comes back; a table near it stays a piece of its own
    body = sitk.And(sitk.BinaryDilate(largest, [*radius[:2], 1], sitk.sitkBall), tissue)
    body = _largest_piece(sitk.Or(body, largest))
    return sitk.BinaryDilate(_fill_slices(body), [1, 1, 1], sitk.sitkBall)


def _shrink(image: sitk.Image) -> sitk.Image:
    factors = [max(1, round(COARSE_MM / spacing)) for spacing in image.GetSpacing()]
    factors = [min(factor, size) for factor, size in zip(factors, image.GetSize(), strict=True)]
    return sitk.BinShrink(image, factors)


def _everything(reference: sitk.Image) -> sitk.Image:
    mask = sitk.Image(reference.GetSize(), sitk.sitkUInt8)
    mask.CopyInformation(reference)
    return mask + 1


def _largest_piece(mask: sitk.Image) -> sitk.Image | None:
    pieces = sitk.RelabelComponent(sitk.ConnectedComponent(mask), sortByObjectSize=True)
    largest = pieces == 1
    statistics = sitk.StatisticsImageFilter()
    statistics.Execute(largest)
    return largest if statistics.GetMaximum() > 0 else None


def _fill_slices(mask: sitk.Image) -> sitk.Image:
    """Fill the holes of every axial slice, with those in-plane sides closed that cut through the body."""
    array = sitk.GetArrayFromImage(mask)
    lower = [int(array[:, :, 0].mean() >= CLOSED_SIDE), int(array[:, 0, :].mean() >= CLOSED_SIDE)]
    upper = [int(array[:, :, -1].mean() >= CLOSED_SIDE), int(array[:, -1, :].mean() >= CLOSED_SIDE)]
    padded = sitk.ConstantPad(mask, [*lower, 0], [*upper, 0], 1)
    slices = [sitk.BinaryFillhole(padded[:, :, z]) for z in range(padded.GetSize()[2])]
    filled = sitk.JoinSeries(slices, padded.GetOrigin()[2], padded.GetSpacing()[2])
    size = mask.GetSize()
    filled = filled[lower[0] : lower[0] + size[0], lower[1] : lower[1] + size[1], :]
    filled.CopyInformation(mask)
    return filled
