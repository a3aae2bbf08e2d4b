"""Raw datasets of nnU-Net: which files below a folder are images of which channel, and which are labels."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGE_FOLDERS = frozenset(("imagesTr", "imagesTs", "imagesVal"))
LABEL_FOLDERS = frozenset(("labelsTr", "labelsTs", "labelsVal"))
_WORDS = {
    "CT": {"ct", "cta", "cect", "ncct", "cbct", "ldct"},
    "MR": {"mr", "mri", "t1", "t1w", "t1c", "t1ce", "t1gd", "t2", "t2w", "t2f", "t1n", "flair", "adc", "dwi", "pd"},
    "PT": {"pt", "pet", "suv"},
}
_WORDS["PET"] = _WORDS["PT"]
_WORDS["MRI"] = _WORDS["MR"]


@dataclass(frozen=True, kw_only=True)
class NnunetRaw:
    """A raw dataset as its dataset.json describes it.

    Attributes:
        channel_names: By channel number; empty where the file tells none.
        file_ending: Of image files, None where the file tells none (nnU-Net v1, Medical Segmentation Decathlon).
        image_folders: Names of those of its folders that hold images.
        label_folders: Names of those of its folders that hold labels.
        problem: What is wrong with dataset.json, or None.
    """

    channel_names: dict[int, str]
    file_ending: str | None
    image_folders: frozenset[str]
    label_folders: frozenset[str]
    problem: str | None = None

    def why_not(self, file_name: str, modality: str) -> str | None:
        """Reason why a file of an image folder is not an image of the modality sought, or None."""
        if self.file_ending and not file_name.endswith(self.file_ending):
            return f"file ending is not the {self.file_ending} of dataset.json"
        stem = file_name[: -len(self.file_ending)] if self.file_ending else file_name.split(".", 1)[0]
        match = re.search(r"_(\d{4})$", stem)
        channel = int(match.group(1)) if match else 0
        name = self.channel_names.get(channel)
        if name is not None and not is_modality(name, modality):
            return f'nnU-Net channel "{name}" is not {modality}'
        return None


def nnunet_raw(folder: Path, subfolders: set[str]) -> NnunetRaw | None:
    """Describe the raw dataset in a folder; None where there is no dataset.json beside images or labels.

    Args:
        folder: To look into.
        subfolders: Names of the folders in it.
    """
    images, labels = subfolders & IMAGE_FOLDERS, subfolders & LABEL_FOLDERS
    path = folder / "dataset.json"
    if not images | labels or not path.is_file():
        return None
    problem = None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        channels = _channels(content)
    except (OSError, ValueError, TypeError, AttributeError):
        content, channels = {}, {}
        problem = "dataset.json cannot be read: the files of all its channels are looked at"
    ending = content.get("file_ending") if isinstance(content, dict) else None
    if isinstance(ending, str) and images and not ending.lower().endswith((".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")):
        problem = f"images of this nnU-Net dataset end with {ending}, which is not read"
    return NnunetRaw(
        channel_names=channels,
        file_ending=ending if isinstance(ending, str) else None,
        image_folders=frozenset(images),
        label_folders=frozenset(labels),
        problem=problem,
    )


def is_modality(channel_name: str, modality: str) -> bool:
    """Whether a channel's name, such as "CT" or "T1w", says the modality sought ("any" takes all)."""
    if modality == "any":
        return True
    words = set(re.split(r"[^a-z0-9]+", channel_name.lower()))
    sought = _WORDS.get(modality.upper(), {modality.lower()})
    others = set().union(*(w for w in _WORDS.values() if not w & sought))
    return bool(words & sought) and not words & others


def _channels(content: Any) -> dict[int, str]:
    """Channel names by number, from nnU-Net v2's "channel_names" or v1's "modality"."""
    names = content.get("channel_names", content.get("modality", {}))
    return {int(number): str(name) for number, name in names.items()}
