"""Label a folder of raw CTs by a trained model, case by case."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from nnunetv2_voco.labelling.confidence import confidence
from nnunetv2_voco.labelling.dataset import DatasetFolder, foreground_labels, read_labels, write_by_renaming
from nnunetv2_voco.labelling.model import load_model
from nnunetv2_voco.pretrain.discover import VolumeSource, discover
from nnunetv2_voco.pretrain.preprocess import content_digest, orient
from nnunetv2_voco.pretrain.read import RejectedVolume, read_volume


class CannotLabel(ValueError):
    """The request makes no sense; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class LabelRequest:
    """What a user asks for.

    Attributes:
        model: Folder of a trained model, or a checkpoint in it.
        folders: Where the volumes lie.
        output: nnUNet_raw/DatasetXXX_Name.
        least_confidence: Cases below are listed and left out.
        resume: Go on with a dataset that an earlier call began.
        device: "cpu", "cuda", "mps" or "auto".
        use_mirroring: Average over mirrored inputs.
        step: Distance of windows as a share of their size.
    """

    model: Path
    folders: tuple[str, ...]
    output: Path
    least_confidence: float = 0.0
    resume: bool = False
    device: str = "auto"
    use_mirroring: bool = True
    step: float = 0.5


def pseudolabel(request: LabelRequest, say: Callable[[str], None] = print) -> int:
    """Write the dataset.

    Returns:
        How many cases it holds.

    Raises:
        CannotLabel, UnusableModel, OSError: With a text for the user.
    """
    _check(request)
    found = discover(request.folders)
    if not found.sources:
        raise CannotLabel(f"{', '.join(request.folders)}: no CT volume found")
    predictor = load_model(
        request.model, device=_device(request.device), use_mirroring=request.use_mirroring, step=request.step
    )
    labels = predictor.dataset_json["labels"]
    there = read_labels(request.output)
    if there is not None and there != {name: value for name, value in labels.items() if name != "ignore"}:
        raise CannotLabel(f"{request.output}: was begun with other labels; name another folder with -o")
    dataset = DatasetFolder(request.output, labels, predictor.dataset_json.get("regions_class_order"))
    dataset.read_rows()
    done = {row["content"] for row in dataset.rows if row.get("content")}
    number = max((int(row["case"].rsplit("_", 1)[1]) for row in dataset.rows if row.get("case")), default=0)
    for source in found.sources:
        image, digest, reason = _read(source)
        if image is not None and digest in done:
            say(f"{source.name}: already there")
            continue
        if image is None:
            say(f"{source.name}: left out, {reason}")
            continue
        done.add(digest)
        number += 1
        case = f"case_{number:05d}"
        dataset.write_image(case, image)
        reader = predictor.plans_manager.image_reader_writer_class()
        data, properties = reader.read_images([str(dataset.image_file(case))])
        segmentation, probabilities = predictor.predict_single_npy_array(
            data, properties, save_or_return_probabilities=True
        )
        scores = confidence(
            np.asarray(probabilities),
            np.asarray(segmentation),
            foreground_labels(labels),
            exclusive=not predictor.label_manager.has_regions,
        )
        value = scores["confidence"]
        kept = (value or 0.0) >= request.least_confidence
        if kept:
            write_by_renaming(
                dataset.label_file(case),
                lambda path, reader=reader, seg=segmentation, of=properties: reader.write_seg(seg, str(path), of),
            )
        else:
            dataset.drop_image(case)
        dataset.note({"case": case, "volume": source.name, "content": digest, "kept": kept, **scores})
        shown = "nothing found" if value is None else f"confidence {value:.3f}"
        say(f"{source.name}: {case}, {shown}" + ("" if kept else f", below {request.least_confidence:g}: left out"))
    return sum(str(row["kept"]) == "True" for row in dataset.rows)


def _check(request: LabelRequest) -> None:
    if not re.fullmatch(r"Dataset\d{3}_[A-Za-z0-9_\-]+", request.output.name):
        raise CannotLabel(f"{request.output}: nnU-Net wants a folder named DatasetXXX_Name, such as Dataset123_Pool")
    if not request.model.exists():
        raise CannotLabel(f"{request.model}: no such file or folder; expected a trained model of nnU-Net")
    if not 0 < request.step <= 1:
        raise CannotLabel(f"step {request.step}: must lie in (0, 1]")
    if request.output.is_dir() and any(request.output.iterdir()) and not request.resume:
        raise CannotLabel(f"{request.output}: is not empty; go on with --continue, or name another folder with -o")


def _read(source: VolumeSource) -> tuple[sitk.Image | None, str, str]:
    """Return the volume and a digest of its content, or none and the reason."""
    try:
        image = read_volume(source).image
    except (RejectedVolume, ValueError) as error:
        return None, "", str(error)
    return image, content_digest(orient(image)), ""


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.device(name)
    except RuntimeError:
        raise CannotLabel(f"device {name!r}: must be auto, cpu, cuda or mps") from None
