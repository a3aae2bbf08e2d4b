"""From a folder of raw volumes to a table of embeddings. What `voco_embed` does, callable from Python."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunetv2_voco.device import usable_device
from nnunetv2_voco.embedding.inputs import complete_contract, intensity_of, target_of, window_size
from nnunetv2_voco.embedding.points import Points, embed_points, read_points
from nnunetv2_voco.embedding.table import check_output, write_table
from nnunetv2_voco.embedding.volumes import embed_volume
from nnunetv2_voco.encoder import check_input_size
from nnunetv2_voco.encoder_model import EncoderModel, InputContract, load_encoder_model
from nnunetv2_voco.foreign import local_file
from nnunetv2_voco.pretrain.cache import VolumeCache
from nnunetv2_voco.pretrain.collect import collect
from nnunetv2_voco.pretrain.discover import discover
from nnunetv2_voco.pretrain.rejection import RejectedVolume
from nnunetv2_voco.source import digest


class NothingToEmbed(ValueError):
    """No volume, or none that is usable."""


@dataclass(frozen=True, kw_only=True)
class EmbedRequest:
    """What a user asks for.

    Attributes:
        checkpoint: File, or "hf://owner/name[/file]".
        folders: Where the volumes lie.
        output: The table to write, .parquet or .csv.
        points: A table of places; whole volumes if None.
        spacing: Distance of voxels in mm, (z, y, x), where the checkpoint does not say it.
        window: HU window that becomes 0…1, where the checkpoint does not say its normalisation.
        crop_size: Edge lengths of the encoder's window; the crops of pre-training if None.
        step: Distance of windows as a share of their size, for whole volumes.
        cache: Root of a cache of pre-processed volumes, such as that of the pre-training; a temporary one if None.
        num_processes: Volumes that are pre-processed at once.
        device: Where the encoder runs.
        untrained_seed: Seed of random weights in place of the checkpoint's, for comparison.
    """

    checkpoint: str
    folders: tuple[str, ...]
    output: Path
    points: Path | None = None
    spacing: tuple[float, float, float] | None = None
    window: tuple[float, float] | None = None
    crop_size: tuple[int, int, int] | None = None
    step: float = 1.0
    cache: Path | None = None
    num_processes: int = 1
    device: str = "cpu"
    untrained_seed: int | None = None


def embed(request: EmbedRequest, *, say: Callable[[str], Any] = lambda text: None) -> tuple[int, int]:
    """Embed and write the table.

    Args:
        request: What is asked for.
        say: Called with lines for a person.

    Returns:
        Rows and columns of features that were written.

    Raises:
        FileNotFoundError: If checkpoint, a folder, or the table of places is missing.
        ValueError: If something does not fit; the text says what.
    """
    check_output(request.output)
    if not 0 < request.step <= 1:
        raise ValueError(f"--step {request.step}: expected a share of the window in (0, 1]")
    device = usable_device(request.device)
    model = load_encoder_model(request.checkpoint)
    if request.untrained_seed is not None:
        model = model.untrained(request.untrained_seed)
    contract = complete_contract(model.contract, spacing_mm=request.spacing, window_hu=request.window)
    size = window_size(model, request.crop_size)
    check_input_size(model.architecture, size)
    model.to(device)
    say(f"the encoder sees {contract}")
    if request.points is None:
        described, features = _whole_volumes(request, model, contract, size, device, say)
    else:
        described, features = _places(request, request.points, model, contract, size, device, say)
    notes = {
        "checkpoint_sha256": digest(local_file(request.checkpoint)),
        "untrained_seed": request.untrained_seed,
        "contract": str(contract),
        "window_vox": list(size),
        "step": request.step,
        "channels_per_stage": list(model.features),
    }
    write_table(request.output, described, features, notes=notes)
    return features.shape[0], features.shape[1]


def _whole_volumes(
    request: EmbedRequest,
    model: EncoderModel,
    contract: InputContract,
    size: tuple[int, int, int],
    device: torch.device,
    say: Callable[[str], Any],
) -> tuple[dict[str, Sequence[Any]], np.ndarray]:
    target = target_of(contract)
    with _cache_folder(request.cache, request.output) as folder:
        cache = VolumeCache(folder, target)
        found = collect(
            request.folders,
            cache,
            target=target,
            modality="CT" if target.hounsfield else "any",
            num_processes=request.num_processes,
        )
        for volume in found.volumes:
            if not volume.record.usable:
                say(f"rejected {volume.name}: {volume.record.reason}")
        for skipped in found.skipped:
            say(f"skipped {skipped.name}: {skipped.reason}")
        names, windows, rows = [], [], []
        for volume in found.usable:
            embedding, count = embed_volume(
                model,
                cache.open(volume.record),
                intensity_of(contract),
                size_vox=size,
                step=request.step,
                device=device,
            )
            say(f"{volume.name}: {count} windows")
            names.append(volume.name)
            windows.append(count)
            rows.append(embedding.numpy())
    if not rows:
        raise NothingToEmbed("no usable volume was found; each is listed above with its reason")
    return {"volume": names, "windows": windows}, np.stack(rows)


def _places(
    request: EmbedRequest,
    path: Path,
    model: EncoderModel,
    contract: InputContract,
    size: tuple[int, int, int],
    device: torch.device,
    say: Callable[[str], Any],
) -> tuple[dict[str, Sequence[Any]], np.ndarray]:
    target = target_of(contract)
    sources = discover(request.folders, modality="CT" if target.hounsfield else "any").sources
    if not sources:
        raise NothingToEmbed("no volume was found in the folder")
    points: Points = read_points(path, sources)
    features = np.empty((len(points.table), model.embedding_size), np.float32)
    for number in np.unique(points.source_of_row):
        rows = np.flatnonzero(points.source_of_row == number)
        try:
            features[rows] = embed_points(
                model,
                sources[number],
                points.table.iloc[rows][list(points.columns)].to_numpy(float),
                points.columns,
                target=target,
                intensity=intensity_of(contract),
                size_vox=size,
                device=device,
            )
        except RejectedVolume as error:
            raise ValueError(f"{sources[number].name}: {error}") from None
        say(f"{sources[number].name}: {len(rows)} places")
    return {str(name): points.table[name].tolist() for name in points.table.columns}, features


@contextmanager
def _cache_folder(given: Path | None, output: Path) -> Iterator[Path]:
    """The cache given, or one beside the output that vanishes."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(dir=output.absolute().parent, prefix=".voco_embed_") as folder:
        yield Path(folder)
