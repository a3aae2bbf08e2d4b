"""Headers of single-file images (NIfTI, NRRD, MetaImage), read without their pixels."""

import gzip
import os
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunetv2_voco.pretrain.rejection import RejectedVolume

FILE_ENDINGS = {
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
    ".mha": "metaimage",
    ".mhd": "metaimage",
}
NIFTI_LABEL_INTENT = 1002
_TEXT_HEADER_LIMIT = 1 << 16


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """What a header says of the pixels.

    Attributes:
        size: Voxels along each axis, trailing axes of one voxel beyond the third left out.
        components: Values per voxel; 3 is usually RGB.
        pixel_type: In words, such as "16-bit signed integer".
        is_8_bit: Whether a voxel can hold 256 values only (no scaling applied on reading).
        is_label_map: Whether the header declares labels.
    """

    size: tuple[int, ...]
    components: int
    pixel_type: str
    is_8_bit: bool
    is_label_map: bool


def image_format(file_name: str) -> str | None:
    """Format of a file by its ending: "nifti", "nrrd", "metaimage" or None."""
    lower = file_name.lower()
    return next((kind for ending, kind in FILE_ENDINGS.items() if lower.endswith(ending)), None)


def read_header(path: Path) -> ImageHeader:
    """Read the header of a NIfTI, NRRD or MetaImage file without its pixels.

    Raises:
        RejectedVolume: The header cannot be read; the text says why, without the path.
    """
    try:
        if path.stat().st_size == 0:
            raise RejectedVolume("the file is empty")
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise RejectedVolume((error.strerror or "the file cannot be opened").lower()) from None
    for companion in data_files(path):
        if not companion.is_file():
            raise RejectedVolume(f"its data file {companion.name} is missing")
    return _nifti_image_header(path) if image_format(path.name) == "nifti" else _itk_image_header(path)


def why_no_volume(header: ImageHeader, *, hounsfield: bool) -> str | None:
    """Say why the image cannot be a volume of the modality sought, or return None.

    Args:
        header: Of the image.
        hounsfield: Whether CT is sought, whose values do not fit into 8 bits.
    """
    size = header.size
    if header.is_label_map:
        return "label map (by its header)"
    if header.components > 1:
        return "RGB image" if header.components in (3, 4) else f"{header.components} values per voxel"
    if len(size) < 3 or size[2] == 1:
        return "2D image"
    if len(size) > 3:
        return f"{len(size)}D image"
    if header.pixel_type.startswith("complex"):
        return "complex numbers"
    if hounsfield and header.is_8_bit:
        return f"label map or 8-bit image ({header.pixel_type})"
    return None


def data_files(path: Path) -> tuple[Path, ...]:
    """Files which a detached header (.nhdr, .mhd) names for its data; empty for patterns, lists and other formats."""
    key = {".nhdr": "data file", ".mhd": "elementdatafile"}.get(path.suffix.lower())
    if key is None:
        return ()
    fields = text_fields(path)
    name = fields.get(key, fields.get("datafile", ""))
    if not name or "%" in name or name.upper().startswith(("LIST", "LOCAL")):
        return ()
    return (path.parent / name,)


def text_fields(path: Path) -> dict[str, str]:
    """Fields of a MetaImage ("key = value") or NRRD ("key: value") header, keys in lower case.

    A MetaImage header ends with ElementDataFile, a NRRD header with an empty line; no pixels are interpreted.
    """
    separator = "=" if image_format(path.name) == "metaimage" else ":"
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        for line in file.read(_TEXT_HEADER_LIMIT).splitlines():
            text = line.decode("latin-1").strip()
            if not text and separator == ":":
                break
            key, found, value = text.partition(separator)
            if found and not text.startswith("#"):
                fields.setdefault(key.strip().lower(), value.lstrip("=").strip())  # NRRD has "key:=value" too
            if key.strip().lower() == "elementdatafile":
                break
    return fields


def whole_numbers(fields: dict[str, str], key: str) -> tuple[int, ...]:
    """Positive whole numbers of a header field.

    Raises:
        RejectedVolume: The field is missing or holds anything else.
    """
    words = fields.get(key, "").split()
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise RejectedVolume(f'"{key}" in the header is missing or holds no positive whole numbers')
    return tuple(int(word) for word in words)


@contextmanager
def silent_itk() -> Any:
    """Keep ITK from printing warnings, which hold absolute paths, for the time of the context."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


@contextmanager
def open_maybe_compressed(path: Path) -> Any:
    """Open for reading, through gzip where the first two bytes say so (endings are not reliable)."""
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not compressed:
            yield raw
            return
        with gzip.open(raw) as file:
            yield file


def nifti_header(path: Path) -> Any:
    """Read a NIfTI-1 or NIfTI-2 header with nibabel, compressed or not, whatever the file's ending says.

    Raises:
        RejectedVolume: This is no NIfTI header.
    """
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    try:
        with open_maybe_compressed(path) as file:
            block = file.read(Nifti2Header.sizeof_hdr)
        for kind in (Nifti1Header, Nifti2Header):
            size = kind.sizeof_hdr
            if len(block) >= size and block[:4] in (size.to_bytes(4, "little"), size.to_bytes(4, "big")):
                header = kind(block[:size], check=False)
                shape = header.get_data_shape()
                if shape and min(shape) > 0 and header.get_data_dtype():
                    return header
    except (WrapStructError, HeaderDataError, EOFError, KeyError, OSError, ValueError, zlib.error):
        pass  # the same words for all of these, which have one cause
    raise RejectedVolume("this is no NIfTI header")


def _nifti_image_header(path: Path) -> ImageHeader:
    header = nifti_header(path)
    shape = [int(n) for n in header.get_data_shape()]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    dtype = header.get_data_dtype()
    slope, intercept = (float(header[name]) for name in ("scl_slope", "scl_inter"))
    scaled = np.isfinite(slope) and slope != 0 and (slope, intercept) != (1.0, 0.0)
    words = {"u": "unsigned integer", "i": "signed integer", "f": "float", "c": "complex number"}
    bits = dtype.itemsize * 8
    components = len(dtype.names) if dtype.names else 1
    if len(shape) == 5 and shape[3] == 1:  # NIfTI's way of storing vectors
        components, shape = shape[4], shape[:3]
    pixel_type = f"{bits}-bit {words.get(dtype.kind, 'values')}"
    return ImageHeader(
        size=tuple(shape),
        components=components,
        pixel_type=f"complex {bits}-bit" if dtype.kind == "c" else pixel_type,
        is_8_bit=dtype.itemsize == 1 and not scaled,
        is_label_map=int(header["intent_code"]) == NIFTI_LABEL_INTENT,
    )


def _itk_image_header(path: Path) -> ImageHeader:
    if image_format(path.name) == "metaimage":
        _check_metaimage_fields(text_fields(path))
    reader = sitk.ImageFileReader()
    reader.SetFileName(os.fspath(path))
    try:
        with silent_itk():
            reader.ReadImageInformation()
    except RuntimeError:  # its text holds the absolute path
        raise RejectedVolume(f"this is no {image_format(path.name)} header that SimpleITK reads") from None
    size = list(reader.GetSize())
    while len(size) > 3 and size[-1] == 1:
        size.pop()
    pixel_type = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    return ImageHeader(
        size=tuple(size),
        components=reader.GetNumberOfComponents(),
        pixel_type=pixel_type,
        is_8_bit=pixel_type.startswith("8-bit"),
        is_label_map=".seg." in path.name.lower() or any(k.startswith("Segment0_") for k in reader.GetMetaDataKeys()),
    )


def _check_metaimage_fields(fields: dict[str, str]) -> None:
    """Refuse damaged headers before MetaIO sees them: it prints to the terminal, or crashes where NDims is wrong."""
    (dimension, *_) = whole_numbers(fields, "ndims")
    sizes = whole_numbers(fields, "dimsize")
    if dimension > 5 or len(sizes) != dimension:
        raise RejectedVolume(f"the header holds {len(sizes)} sizes for {dimension} dimensions")
    if "elementdatafile" not in fields or not fields.get("elementtype", "").startswith("MET_"):
        raise RejectedVolume("the header does not say where the data is and of which type")
    for key in ("elementspacing", "elementsize", "offset", "position", "origin", "transformmatrix", "orientation"):
        try:
            count = len([float(word) for word in fields.get(key, "").split()])
        except ValueError:
            raise RejectedVolume(f'"{key}" in the header holds no numbers') from None
        if count not in (0, dimension, dimension**2):
            raise RejectedVolume(f'"{key}" in the header holds {count} numbers for {dimension} dimensions')
