"""Find every volume under some folders by names and headers, without reading pixels."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_voco.pretrain.dicom import read_headers
from nnunetv2_voco.pretrain.dicom_series import group_series
from nnunetv2_voco.pretrain.headers import data_files, image_format, read_header, why_no_volume
from nnunetv2_voco.pretrain.nnunet_raw import NnunetRaw, nnunet_raw
from nnunetv2_voco.pretrain.rejection import RejectedVolume

_NO_IMAGES = frozenset(
    ".b2nd .bmp .bval .bvec .csv .db .doc .docx .exe .gif .h5 .hdr .html .img .inf .ini .jpeg .jpg .js .json .jsonl "
    ".log .md .mat .npy .npz .obj .pdf .pkl .png .pptx .pth .pt .py .raw .rtf .sh .stl .tar .tfm .tif .tiff .toml .tsv "
    ".txt .vtk .vtp .xls .xlsx .xml .yaml .yml .zip .zraw .gz .7z .rar".split()
)
_IGNORED_NAMES = frozenset(("dicomdir", "thumbs.db", "desktop.ini", "license", "readme", "makefile"))
_LIST_AT_MOST = 10  # skipped files of one kind in one folder; datasets may hold a hundred label maps per patient
_IGNORED_FOLDERS = frozenset(("__macosx", "$recycle.bin", "@eadir", "__pycache__"))


@dataclass(frozen=True, kw_only=True)
class VolumeSource:
    """Where one volume lies.

    Attributes:
        name: What tables show: the path below the parent of the given folder, in posix form; of a DICOM series its
            folder, followed by "#1", "#2", … where a folder holds several.
        files: One file, or the slices of a DICOM series in order along the slice normal.
        file_format: "nifti", "nrrd", "metaimage" or "dicom".
    """

    name: str
    files: tuple[Path, ...] = field(repr=False)
    file_format: str

    def fingerprint(self) -> str:
        """SHA-256 of the name and of base names, sizes and times of the files: notices changed input.

        It does not depend on where the given folder lies, and no pixel is read.

        Raises:
            OSError: A file is gone or cannot be accessed.
        """
        digest = hashlib.sha256(self.name.encode("utf-8", "surrogateescape"))
        detached = data_files(self.files[0]) if len(self.files) == 1 else ()
        for path in (*self.files, *detached):
            status = path.stat()
            text = f"\0{path.name}\0{status.st_size}\0{status.st_mtime_ns}"
            digest.update(text.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class SkippedFile:
    """What is no volume of the modality sought: a file, a folder's files of one kind, or a folder, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """The volumes found and what was skipped, each sorted by name."""

    sources: tuple[VolumeSource, ...]
    skipped: tuple[SkippedFile, ...]


def discover(folders: Sequence[str | os.PathLike], *, modality: str = "CT") -> Discovery:
    """Find the volumes under some folders, at any depth and in any mixture of formats.

    NIfTI, NRRD, MetaImage, DICOM series with or without file endings and raw datasets of nnU-Net are found. Links to
    folders are followed, each folder is visited once. What is named as an image but is none of the modality sought
    is listed in `skipped`; hidden files and files that are obviously no images are not.

    Args:
        folders: Folders, or files that are volumes themselves.
        modality: "CT", another DICOM modality such as "MR", or "any". Of files without a modality in their header
            (NIfTI, NRRD, MetaImage) "CT" refuses those of 8 bits, which cannot hold Hounsfield units.

    Raises:
        FileNotFoundError: A folder does not exist.
    """
    roots = [Path(os.path.abspath(folder)) for folder in folders]
    for given, root in zip(folders, roots, strict=True):
        if not root.exists():
            raise FileNotFoundError(f"{os.fspath(given)}: there is no such folder; give the folder that holds the CTs")
    search = _Search(modality=modality)
    visited: set[tuple[int, int]] = set()
    for root, label in zip(roots, _labels(roots), strict=True):
        search.take_root(root, label, visited)
    return Discovery(
        sources=tuple(sorted(search.sources, key=lambda s: s.name)),
        skipped=tuple(sorted(search.skipped, key=lambda s: (s.name, s.reason))),
    )


class _Search:
    """Collects sources and skipped files over all roots."""

    def __init__(self, *, modality: str) -> None:
        self.modality = modality if modality.lower() != "any" else "any"
        self.hounsfield = modality.upper() == "CT"
        self.sources: list[VolumeSource] = []
        self.skipped: list[SkippedFile] = []
        self._names: Counter[str] = Counter()
        self._skips: defaultdict[tuple[Path, str], list[Path]] = defaultdict(list)

    def take_root(self, root: Path, label: str, visited: set[tuple[int, int]]) -> None:
        """Add everything below `root`, whose own name in tables is `label`."""
        self._root, self._label = root, label
        maybe_dicom: list[Path] = []
        files = self._walk(root, visited) if root.is_dir() else iter([root])
        for path in files:
            if kind := image_format(path.name):
                self._take_file(path, kind)
            elif path.suffix.lower() not in _NO_IMAGES and path.name.lower() not in _IGNORED_NAMES:
                maybe_dicom.append(path)
        self._take_dicom(maybe_dicom)
        self._list_skipped()

    def _walk(self, root: Path, visited: set[tuple[int, int]]) -> Iterator[Path]:
        """Files below `root` in a fixed order; labels and foreign channels of nnU-Net datasets are left out."""
        pending = [root]
        datasets: dict[Path, NnunetRaw] = {}
        if (above := nnunet_raw(root.parent, {root.name})) and root.name in above.image_folders:
            datasets[root] = above
        while pending:
            folder = pending.pop()
            try:
                status = folder.stat()
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                self._skip_folder(folder, f"folder cannot be listed ({(error.strerror or 'unknown error').lower()})")
                continue
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            dataset = datasets.get(folder)
            subfolders = []
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                path = Path(entry.path)
                if _is_folder(entry):
                    if entry.name.lower() not in _IGNORED_FOLDERS:
                        subfolders.append(path)
                elif dataset and (reason := dataset.why_not(entry.name, self.modality)):
                    if image_format(entry.name):
                        self._skip(path, reason)
                elif not entry.is_symlink() or path.exists() or image_format(entry.name):
                    yield path
            if here := nnunet_raw(folder, {path.name for path in subfolders}):
                if here.problem:
                    self._skip(folder / "dataset.json", here.problem)
                for path in subfolders[:]:
                    if path.name in here.image_folders:
                        datasets[path] = here
                    elif path.name in here.label_folders:
                        self._skip_folder(path, "label maps of an nnU-Net dataset")
                        subfolders.remove(path)
            pending += reversed(subfolders)

    def _take_file(self, path: Path, kind: str) -> None:
        try:
            reason = why_no_volume(read_header(path), hounsfield=self.hounsfield)
        except RejectedVolume as error:
            reason = f"header cannot be read ({error})"
        if reason:
            self._skip(path, reason)
        else:
            self._add(self._name(path), (path,), kind)

    def _take_dicom(self, paths: list[Path]) -> None:
        headers, failed = read_headers(paths)
        unreadable: Counter[tuple[Path, str]] = Counter((path.parent, reason) for path, reason in failed)
        for (folder, reason), count in unreadable.items():
            self._skip_folder(folder, reason + _files(count))
        groups = group_series(headers, modality=self.modality)
        by_folder = defaultdict(list)
        for group in groups:
            if group.reason is None:
                by_folder[group.folder].append(group)
            else:
                self._skip_folder(group.folder, group.reason + _files(len(group.files)))
        for folder, volumes in by_folder.items():
            for number, group in enumerate(volumes, start=1):
                suffix = f"#{number}" if len(volumes) > 1 else ""
                self._add(self._name(folder) + suffix, group.files, "dicom")

    def _add(self, name: str, files: tuple[Path, ...], kind: str) -> None:
        self._names[name] += 1
        if self._names[name] > 1:  # the same base names in two given folders whose labels coincide
            name = f"{name} ({self._names[name]})"
        self.sources.append(VolumeSource(name=name, files=files, file_format=kind))

    def _skip(self, path: Path, reason: str) -> None:
        self._skips[path.parent, reason].append(path)

    def _skip_folder(self, folder: Path, reason: str) -> None:
        self.skipped.append(SkippedFile(name=self._name(folder), reason=reason))

    def _list_skipped(self) -> None:
        """List each skipped file, or their number where a folder holds many of one kind."""
        for (folder, reason), paths in self._skips.items():
            if len(paths) > _LIST_AT_MOST:
                self.skipped.append(SkippedFile(name=self._name(folder), reason=reason + _files(len(paths))))
            else:
                self.skipped += [SkippedFile(name=self._name(path), reason=reason) for path in paths]
        self._skips.clear()

    def _name(self, path: Path) -> str:
        """Path below the root's parent; a DICOM file given alone is named by its folder."""
        if self._root.is_dir():
            return (Path(self._label) / path.relative_to(self._root)).as_posix()
        return self._label if path == self._root else path.name


def _labels(roots: Sequence[Path]) -> list[str]:
    """Last component of each root, preceded by as many more as it takes to tell different roots apart."""
    labels = []
    for root in roots:
        others = {other for other in roots if other != root}
        depth = 1
        while depth < len(root.parts) - 1 and any(o.parts[-depth:] == root.parts[-depth:] for o in others):
            depth += 1
        labels.append("/".join(part for part in root.parts[-depth:] if part != root.anchor) or "data")
    return labels


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link into a folder that may not be entered
        return False


def _files(count: int) -> str:
    return f" ({count} files)" if count > 1 else ""
