"""Embeddings of single places: which places a table names, and where they lie in a pre-processed volume.

Frames: "mm" is the patient's frame of DICOM and ITK, x to the left, y to the back, z to the head (LPS). Voxels i, j, k
are counted from 0 along the axes of the file, i fastest, as ITK and nibabel count them. Arrays are (z, y, x).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd

from nnunetv2_voco.encoder_model import EncoderModel
from nnunetv2_voco.pretrain.cache import fill_value
from nnunetv2_voco.pretrain.discover import VolumeSource
from nnunetv2_voco.pretrain.intensity import Intensity
from nnunetv2_voco.pretrain.preprocess import PreparedVolume, Target, orient, prepare
from nnunetv2_voco.pretrain.read import RawVolume, read_volume
from nnunetv2_voco.pretrain.rejection import RejectedVolume

MM_COLUMNS = ("x_mm", "y_mm", "z_mm")
VOXEL_COLUMNS = ("i", "j", "k")


@dataclass(frozen=True)
class Points:
    """The places that a table names.

    Attributes:
        table: As read; one row per place, a column `volume` and all others as they were.
        columns: `MM_COLUMNS` or `VOXEL_COLUMNS`.
        source_of_row: Index of each row's volume among the sources.
    """

    table: pd.DataFrame
    columns: tuple[str, ...]
    source_of_row: np.ndarray


def read_points(path: Path, sources: Sequence[VolumeSource]) -> Points:
    """Read a table of places and find their volumes.

    A volume is named as in the tables of `voco_pretrain` and `voco_embed`, or by the end of that name, if only one
    volume's name ends so.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If columns are missing, numbers are none, or a volume is unknown or ambiguous.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a CSV table of places")
    try:
        table = pd.read_csv(path, dtype={"volume": str})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as a CSV table ({error})") from None
    kinds = [columns for columns in (MM_COLUMNS, VOXEL_COLUMNS) if set(columns) <= set(table.columns)]
    if "volume" not in table or len(kinds) != 1 or table.empty:
        raise ValueError(
            f"{path}: expected rows with the columns volume and either {', '.join(MM_COLUMNS)} (patient's frame, LPS) "
            f"or {', '.join(VOXEL_COLUMNS)} (voxels of the file), found {len(table)} rows of "
            f"{', '.join(map(str, table.columns[:8]))}"
        )
    places = table[list(kinds[0])].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    if not np.isfinite(places).all():
        row = int(np.flatnonzero(~np.isfinite(places).all(axis=1))[0])
        raise ValueError(f"{path}: line {row + 2}: {', '.join(kinds[0])} are not all numbers")
    names = [source.name for source in sources]
    found = {name: _find(str(name), names, path) for name in table["volume"].unique()}
    return Points(table, kinds[0], table["volume"].map(found).to_numpy())


def _find(name: str, names: Sequence[str], path: Path) -> int:
    fitting = [i for i, known in enumerate(names) if known == name] or [
        i for i, known in enumerate(names) if known.endswith(f"/{name}")
    ]
    if len(fitting) != 1:
        problem = "fits several volumes" if fitting else "is no volume of the folder"
        raise ValueError(
            f"{path}: volume {name!r} {problem}; there are {', '.join(names[:5])}" + "…" * (len(names) > 5)
        )
    return fitting[0]


def embed_points(
    model: EncoderModel,
    source: VolumeSource,
    points_P3: np.ndarray,
    columns: Sequence[str],
    *,
    target: Target,
    intensity: Intensity,
    size_vox: Sequence[int],
    device: torch.device,
) -> np.ndarray:
    """Embed places of one volume, each seen in a window around it.

    Args:
        model: The encoder, on `device`.
        source: The volume.
        points_P3: Places in the frame of `columns`.
        columns: `MM_COLUMNS` or `VOXEL_COLUMNS`.
        target: What the volume is brought to.
        intensity: Its normalisation.
        size_vox: Edge lengths of a window.
        device: Where the encoder is.

    Returns:
        float32 (P, E): the features of all stages, interpolated at the places.

    Raises:
        RejectedVolume: If the volume cannot be used, or a place lies outside of it; without a path.
    """
    raw = read_volume(source, hounsfield=target.hounsfield)
    try:
        volume = prepare(raw.image, target)
    except ValueError as error:
        raise RejectedVolume(str(error)) from None
    physical_P3 = to_mm(raw, points_P3) if tuple(columns) == VOXEL_COLUMNS else points_P3
    places_P3 = to_array(raw.image, physical_P3, volume, target)
    fill = fill_value(volume, target)
    return np.stack([_embed_one(model, volume, place, intensity, size_vox, fill, device) for place in places_P3])


def to_mm(raw: RawVolume, voxels_P3: np.ndarray) -> np.ndarray:
    """Return where voxels (i, j, k) lie in the patient's frame.

    Raises:
        RejectedVolume: If the volume was resampled on reading, so that its voxels are not those of the file.
    """
    if raw.resampled:
        raise RejectedVolume(
            f"its voxels were resampled on reading ({'; '.join(raw.mended)}); name places by {', '.join(MM_COLUMNS)}"
        )
    return np.array([raw.image.TransformContinuousIndexToPhysicalPoint(p.tolist()) for p in voxels_P3])


def to_array(image: sitk.Image, points_P3: np.ndarray, volume: PreparedVolume, target: Target) -> np.ndarray:
    """Return the fractional index in `volume.array` of places in the patient's frame.

    Raises:
        RejectedVolume: If a place lies outside the image.
    """
    turned = sitk.DICOMOrient(image, "LPS")
    index_P3 = np.array([turned.TransformPhysicalPointToContinuousIndex(p.tolist()) for p in points_P3])
    outside = ((index_P3 < -0.5) | (index_P3 > np.array(turned.GetSize()) - 0.5)).any(axis=1)
    if outside.any():
        text = ", ".join(f"{value:.1f}" for value in points_P3[outside][0])
        raise RejectedVolume(f"{outside.sum()} place(s) lie outside of it, the first at ({text}) mm in the frame LPS")
    straight = orient(image)
    own_mm_P3 = np.array(straight.GetOrigin()) + index_P3 * np.array(straight.GetSpacing())
    spacing_zyx = np.array(target.spacing_mm)[np.argsort(target.transpose)]
    place_zyx_P3 = (own_mm_P3 - np.array(volume.origin_mm))[:, ::-1] / spacing_zyx
    return place_zyx_P3[:, list(target.transpose)]


@torch.inference_mode()
def _embed_one(
    model: EncoderModel,
    volume: PreparedVolume,
    place_3: np.ndarray,
    intensity: Intensity,
    size_vox: Sequence[int],
    fill: int,
    device: torch.device,
) -> np.ndarray:
    size = np.array(size_vox)
    corner = np.rint(place_3).astype(int) - size // 2
    corner = np.clip(corner, 1 - size, np.array(volume.array.shape) - 1)  # one that misses the body sees its rim
    box = [[int(low), int(low) + int(size)] for low, size in zip(corner, size_vox, strict=True)]
    window = intensity(crop_and_pad_nd(volume.array, box, fill))
    image = torch.from_numpy(np.ascontiguousarray(window))[None, None].to(device)
    return model.embed_places(image, (place_3 - corner)[None])[0].cpu().numpy()
