"""Opening encoder weights in the forms in which they are passed around.

Besides this package's own checkpoints: those of nnssl (OpenMind), of nnU-Net itself, and bare state dicts, such as the
authors' `VoComni_nnunet.pt` and SwinUNETR files, as .pth/.pt or safetensors, on disk or in a Hugging Face repository.
Nothing is unpickled but tensors, plain types and NumPy scalars.
"""

import _codecs
import os
import pickle
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunetv2_voco.checkpoint import CITATIONS, CT_SCHEME, FORMAT, Checkpoint, CheckpointError, checkpoint_from_content
from nnunetv2_voco.classes import output_classes
from nnunetv2_voco.encoder import Architecture, residual_architecture
from nnunetv2_voco.layout import canonical_weights
from nnunetv2_voco.swin_files import PATCH_EMBEDDING, is_swin, swin_names, swin_size, where_to_get
from nnunetv2_voco.target import settings_of

STATE_DICT_KEYS = ("network_weights", "state_dict", "model_state_dict", "net", "model", "student")
"""Where a file may keep its state dict, in order of preference."""

WRAPPERS = ("module.", "backbone.", "model.", "net.", "network.", "student.")
"""Prefixes which training code puts before the network's own names."""

HUB = "hf://"
HUB_FILES = ("voco_encoder.pth", "checkpoint_final.pth", "model.safetensors", "pytorch_model.bin")
"""Files that are looked for in a Hugging Face repository when none is named."""


@dataclass(frozen=True, kw_only=True)
class ForeignCheckpoint:
    """Weights that another program wrote, as far as the file describes them.

    Attributes:
        weights: State dict, named as in the whole network ("encoder.stages.0…", "decoder…").
        origin: What kind of file it was.
        architecture: The network the weights belong to, if the file says it.
        details: What else the file says of itself, in plain types.
        preprocessing: As `Checkpoint.preprocessing`, as far as the file says it.
        citations: What its authors ask to cite.
        classes: Names of the decoder's outputs, background first; none if the file does not say them.
    """

    weights: dict[str, Tensor]
    origin: str
    architecture: Architecture | None = None
    details: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    citations: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


def open_checkpoint(location: str | os.PathLike) -> Checkpoint | ForeignCheckpoint:
    """Read weights from a file or from "hf://owner/name[/file]".

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file holds no encoder of a known form or is from a newer version.
    """
    path = local_file(location)
    content = read_content(path)
    if isinstance(content, dict) and content.get("format") == FORMAT:
        return checkpoint_from_content(content, path)
    weights = _state_dict(content)
    if weights is None:
        keys = sorted(map(str, content))[:8] if isinstance(content, dict) else [type(content).__name__]
        raise CheckpointError(
            f"{path}: unknown format; expected a checkpoint of nnunetv2_voco, nnssl or nnU-Net, or a state dict, "
            f"found {', '.join(keys)}"
        )
    if is_swin(weights):
        checkpoint = _from_swin(content, weights)
    elif "nnssl_adaptation_plan" in content:
        checkpoint = _from_nnssl(content, weights)
    elif "init_args" in content:
        checkpoint = _from_nnunet(content, weights)
    else:
        checkpoint = ForeignCheckpoint(weights=network_names(weights), origin="state dict")
    if not any(name.startswith(("encoder.", "eva.", PATCH_EMBEDDING)) for name in checkpoint.weights):
        raise CheckpointError(
            f"{path}: no encoder of a network of nnU-Net inside; expected names such as encoder.stages.0…, found "
            f"{', '.join(list(weights)[:3])}…"
        )
    return checkpoint


def local_file(location: str | os.PathLike) -> Path:
    """Return the file itself, downloaded into the Hugging Face cache if `location` is "hf://owner/name[/file]".

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the address is none.
    """
    text = os.fspath(location)
    if text.startswith(HUB):
        return _from_hub(text)
    path = Path(text).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected a checkpoint such as OUT/voco_encoder.pth{where_to_get(path.name)}"
        )
    return path


def network_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name the tensors as the whole network does: without wrappers' prefixes, the encoder under "encoder."."""
    result = {}
    for name, tensor in weights.items():
        name = name.replace("_orig_mod.", "")
        while name.startswith(WRAPPERS):
            name = name.split(".", 1)[1]
        name = re.sub(r"^encoder\.encoder\.", "encoder.", name)
        if name.startswith(("stages.", "stem.")):
            name = f"encoder.{name}"
        result[name] = tensor
    return canonical_weights(result)


def read_content(path: Path) -> Any:
    """Read a file of tensors and plain types, nnU-Net's checkpoints among them.

    Raises:
        CheckpointError: If it is none, holds more than that, or is damaged.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path}: cannot be read as safetensors ({error})") from error
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            with _numpy_scalars():
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than tensors and plain types, or is damaged, and is not opened: "
            f"{str(error).splitlines()[0]}"
        ) from error
    except Exception as error:  # torch raises whatever its zip reader or legacy reader meets
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({type(error).__name__}: {error})") from error


def _numpy_scalars() -> AbstractContextManager:
    """Allow the NumPy scalars that nnU-Net and nnssl keep in their logs; nothing else beyond torch's own list."""
    if not hasattr(torch.serialization, "safe_globals"):  # an older torch: such files are refused
        return nullcontext()
    reconstruct = np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.float16, np.int64, np.int32, np.bool_)]
    names = [(reconstruct, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return torch.serialization.safe_globals([*names, _codecs.encode, np.dtype, *dtypes])


def _state_dict(content: Any) -> dict[str, Tensor] | None:
    """Return the tensors by name, from the content itself or from where training code keeps them."""
    if not isinstance(content, dict):
        return None
    for candidate in (*(content.get(key) for key in STATE_DICT_KEYS), content):
        if isinstance(candidate, dict):
            tensors = {name: value for name, value in candidate.items() if isinstance(value, Tensor)}
            if tensors and all(isinstance(name, str) for name in tensors):
                return tensors
    return None


def _from_nnssl(content: dict[str, Any], weights: dict[str, Tensor]) -> ForeignCheckpoint:
    plan = content["nnssl_adaptation_plan"]
    block = plan["architecture_plans"]
    architecture = None
    if block["arch_class_name"] == "ResEncL":  # nnssl's preset; it stores no arguments
        architecture = residual_architecture()
    elif block["arch_kwargs"]:
        architecture = Architecture.from_plans(
            {
                "network_class_name": _import_path(block["arch_class_name"]),
                "arch_kwargs": block["arch_kwargs"],
                "_kw_requires_import": block["arch_kwargs_requiring_import"] or (),
            }
        )
    if architecture is not None:
        weights = _rename(weights, plan["key_to_encoder"], "encoder.stages")
        if architecture.is_residual:
            weights = _rename(weights, plan["key_to_stem"], "encoder.stem")
    return ForeignCheckpoint(
        weights=network_names(weights),
        origin="nnssl",
        architecture=architecture,
        details={
            "architecture": block["arch_class_name"],
            "trainer": content.get("trainer_name"),
            "configurations": plan["pretrain_plan"].get("configurations"),
        },
        citations=tuple(
            text
            for entry in content.get("citations", ())
            for text in (*entry.get("apa_citations", ()), *entry.get("bibtex_citations", ()))
        ),
    )


def _from_swin(content: dict[str, Any], weights: dict[str, Tensor]) -> ForeignCheckpoint:
    named = swin_names(weights)
    return ForeignCheckpoint(
        weights=named,
        origin="MONAI's SwinUNETR",
        details={
            "size": swin_size(named),
            "trainer": content.get("trainer_name"),
            "fine_tuned_by": content.get("nnunetv2_voco"),
        },
        citations=CITATIONS[:1],
    )


def _from_nnunet(content: dict[str, Any], weights: dict[str, Tensor]) -> ForeignCheckpoint:
    arguments = content["init_args"]
    plans, name = arguments["plans"], arguments["configuration"]
    configuration = settings_of(plans, name)
    block = configuration.get("architecture")
    return ForeignCheckpoint(
        weights=network_names(weights),
        origin="nnU-Net",
        architecture=Architecture.from_plans(block) if block else None,
        details={
            "dataset": plans.get("dataset_name"),
            "plans": plans.get("plans_name"),
            "configuration": name,
            "trainer": content.get("trainer_name"),
            "epochs": content.get("current_epoch"),
            "fine_tuned_by": content.get("nnunetv2_voco"),
        },
        preprocessing=_planned_preprocessing(plans, configuration),
        classes=output_classes(arguments.get("dataset_json", {}).get("labels", {})),
    )


def _planned_preprocessing(plans: dict[str, Any], configuration: dict[str, Any]) -> dict[str, Any]:
    """What the plans of a trained model say of its first channel."""
    schemes = configuration.get("normalization_schemes") or [None]
    statistics = plans.get("foreground_intensity_properties_per_channel", {}).get("0", {})
    return {
        "spacing_mm": configuration.get("spacing"),
        "normalization_scheme": schemes[0],
        "intensity_properties": statistics if schemes[0] == CT_SCHEME else {},
    }


def _rename(weights: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {f"{new}{name[len(old) :]}" if name.startswith(f"{old}.") else name: t for name, t in weights.items()}


def _import_path(class_name: str) -> str:
    return class_name if "." in class_name else f"dynamic_network_architectures.architectures.unet.{class_name}"


def _from_hub(address: str) -> Path:
    parts = address.removeprefix(HUB).strip("/").split("/", 2)
    if len(parts) < 2 or not all(parts):
        raise CheckpointError(f"{address}: expected hf://owner/name or hf://owner/name/file")
    from huggingface_hub import hf_hub_download  # costs more time to import than all the rest of this module
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    files = tuple(parts[2:]) or HUB_FILES
    failure: Exception | None = None
    for file in files:
        try:
            return Path(hf_hub_download(repo_id="/".join(parts[:2]), filename=file))
        except (EntryNotFoundError, LocalEntryNotFoundError) as error:
            failure = error
        except (HfHubHTTPError, OSError) as error:
            raise FileNotFoundError(f"{address}: cannot be fetched ({type(error).__name__}: {error})") from error
    raise FileNotFoundError(f"{address}: none of {', '.join(files)} is there ({failure})")
