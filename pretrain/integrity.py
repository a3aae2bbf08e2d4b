"""Whether the pixel data of a single-file image is all there, checked without trusting ITK, which may not say."""

import math
import re
import zlib
from pathlib import Path
from typing import IO

from nnunetv2_voco.pretrain.headers import (
    data_files,
    image_format,
    nifti_header,
    open_maybe_compressed,
    text_fields,
    whole_numbers,
)
from nnunetv2_voco.pretrain.rejection import RejectedVolume

_CHUNK = 1 << 20
_TEXT_HEADER_LIMIT = 1 << 16
_META_BYTES = {
    "MET_CHAR": 1,
    "MET_UCHAR": 1,
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
    "MET_LONG_LONG": 8,
    "MET_ULONG_LONG": 8,
}

_NRRD_BYTES = {
    1: "signed char|int8|int8_t|uchar|unsigned char|uint8|uint8_t".split("|"),
    2: "short|short int|signed short|signed short int|int16|int16_t|ushort|unsigned short|unsigned short int|"
    "uint16|uint16_t".split("|"),
    4: "int|signed int|int32|int32_t|uint|unsigned int|uint32|uint32_t|float".split("|"),
    8: "longlong|long long|long long int|int64|int64_t|ulonglong|unsigned long long|uint64|uint64_t|double".split("|"),
}


def check_data_complete(path: Path) -> None:
    """Raise where pixel data is cut off or its compression is damaged.

    Of NIfTI, ITK fills the missing rest with zeros without a word; of compressed MetaImage it keeps what came before
    the damage; of NRRD it does not verify the checksum.

    Raises:
        RejectedVolume: With the number of bytes found and expected.
    """
    kind = image_format(path.name)
    if kind == "nifti":
        header = nifti_header(path)
        voxels = math.prod(int(n) for n in header.get_data_shape())
        expected = int(header.get_data_offset()) + voxels * int(header.get_data_dtype().itemsize)
        with open_maybe_compressed(path) as file:
            _require_bytes(_count_bytes(file), expected)
    elif kind == "metaimage":
        _check_metaimage(path)
    elif kind == "nrrd":
        _check_nrrd(path)


def _count_bytes(file: IO[bytes]) -> int:
    """Read to the end, which makes gzip verify its checksum; return the number of bytes."""
    count = 0
    try:
        while chunk := file.read(_CHUNK):
            count += len(chunk)
    except EOFError:
        raise RejectedVolume(f"truncated: the gzip stream breaks off after {count} bytes") from None
    except (OSError, zlib.error):
        raise RejectedVolume(f"damaged: the gzip stream cannot be decoded after {count} bytes") from None
    return count


def _check_metaimage(path: Path) -> None:
    fields = text_fields(path)
    separate = data_files(path)
    if not separate and fields.get("elementdatafile", "").upper() != "LOCAL":
        return  # a list or pattern of files: left to ITK
    data = (separate[0] if separate else path).read_bytes()
    if not separate:
        data = data[data.index(b"\n", data[:_TEXT_HEADER_LIMIT].lower().index(b"elementdatafile")) + 1 :]
    itemsize = _META_BYTES.get(fields.get("elementtype", "").upper())
    if itemsize is None or fields.get("binarydata", "true").lower() != "true":
        return
    expected = math.prod(whole_numbers(fields, "dimsize")) * itemsize
    compressed = fields.get("compresseddata", "").lower() == "true"
    _require_bytes(_count_inflated(data) if compressed else len(data), expected)


def _check_nrrd(path: Path) -> None:
    fields = text_fields(path)
    separate = data_files(path)
    encoding = fields.get("encoding", "").lower()
    if (not separate and ("data file" in fields or "datafile" in fields)) or encoding not in ("raw", "gzip", "gz"):
        return  # a list or pattern of files, or numbers as text: left to ITK
    itemsize = next((n for n, names in _NRRD_BYTES.items() if fields.get("type", "").lower() in names), None)
    skipped = {fields.get("line skip", "0"), fields.get("byte skip", "0")}
    if itemsize is None or skipped != {"0"}:
        return
    data = (separate[0] if separate else path).read_bytes()
    if not separate:
        data = re.split(rb"\r?\n\r?\n", data, maxsplit=1)[-1]  # the header ends with an empty line
    expected = math.prod(whole_numbers(fields, "sizes")) * itemsize
    _require_bytes(len(data) if encoding == "raw" else _count_inflated(data), expected)


def _count_inflated(data: bytes) -> int:
    """Decode a zlib or gzip stream to its end; return the number of decoded bytes."""
    stream = zlib.decompressobj(wbits=47)  # 32 + 15: zlib or gzip, as MetaIO reads
    count = 0
    try:
        for start in range(0, len(data), _CHUNK):
            count += len(stream.decompress(data[start : start + _CHUNK]))
    except zlib.error:
        raise RejectedVolume(f"damaged: the compressed data cannot be decoded after {count} bytes") from None
    if not stream.eof:
        raise RejectedVolume(f"truncated: the compressed data breaks off after {count} bytes")
    return count


def _require_bytes(found: int, expected: int) -> None:
    if found < expected:
        raise RejectedVolume(f"truncated: {found} bytes where the header asks for {expected}")
