"""A trained model of nnU-Net, found by its folder or by one of its checkpoints."""

from pathlib import Path

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunetv2_voco.foreign import open_checkpoint


class UnusableModel(ValueError):
    """There is no model of nnU-Net that labels CTs; the text says what to give."""


def load_model(path: Path, *, device: torch.device, use_mirroring: bool = True, step: float = 0.5) -> nnUNetPredictor:
    """Load nnU-Net's predictor.

    Args:
        path: Folder of a trained model (TRAINER__PLANS__CONFIGURATION), whose finished folds are averaged, or the
            checkpoint of one fold within it.
        device: Where to predict.
        use_mirroring: Average over mirrored inputs, as nnU-Net does by default.
        step: Distance of windows as a share of their size.

    Raises:
        UnusableModel: If it is none, or takes something other than one CT channel.
    """
    folder, folds, name = _locate(path)
    predictor = nnUNetPredictor(
        tile_step_size=step,
        use_mirroring=use_mirroring,
        perform_everything_on_device=device.type == "cuda",
        device=device,
        allow_tqdm=False,
    )
    predictor.initialize_from_trained_model_folder(str(folder), folds, name)
    channels = [str(channel) for channel in predictor.dataset_json["channel_names"].values()]
    if len(channels) != 1 or channels[0].lower() != "ct":
        raise UnusableModel(f"{folder}: the model takes {', '.join(channels)}; one that takes a CT alone is needed")
    if predictor.configuration_manager.previous_stage_name is not None:
        raise UnusableModel(f"{folder}: is the second stage of a cascade; give a model that predicts by itself")
    return predictor


def _locate(path: Path) -> tuple[Path, tuple[int | str, ...], str]:
    """Return model folder, folds and the checkpoints' file name."""
    if path.is_file():
        folder, fold = path.resolve().parent.parent, path.resolve().parent.name
        if not fold.startswith("fold_") or not (folder / "plans.json").is_file():
            raise UnusableModel(_why_no_model(path))
        return folder, (_fold(fold),), path.name
    if not (path / "plans.json").is_file() or not (path / "dataset.json").is_file():
        raise UnusableModel(
            f"{path}: holds no plans.json and dataset.json; expected a folder of nnUNet_results such as "
            "Dataset003_Liver/nnUNetTrainerVoCo__nnUNetPlans__3d_fullres"
        )
    name = "checkpoint_final.pth"
    folds = sorted(file.parent.name for file in path.glob(f"fold_*/{name}"))
    if not folds:
        raise UnusableModel(f"{path}: no fold has a {name}; finish a training, or give the checkpoint of a fold")
    return path, tuple(_fold(fold) for fold in folds if fold != "fold_all" or len(folds) == 1), name


def _fold(folder_name: str) -> int | str:
    number = folder_name.removeprefix("fold_")
    return int(number) if number.isdigit() else number


def _why_no_model(path: Path) -> str:
    """Say what a file is that lies in no model folder."""
    try:
        weights = open_checkpoint(path).weights
    except (ValueError, OSError) as error:
        return str(error)
    what = "an encoder without a segmentation network" if not any(n.startswith("decoder") for n in weights) else (
        "weights without nnU-Net's plans and labels"
    )  # fmt: skip
    return (
        f"{path}: holds {what}; fine-tune it (voco_plan, nnUNetv2_train) and give the trained model's folder, or the "
        "checkpoint within it"
    )
