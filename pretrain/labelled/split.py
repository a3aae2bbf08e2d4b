"""Training and validation cases of a labelled dataset, as nnU-Net has split them or would; nothing is written."""

import json
from pathlib import Path


def split_cases(
    folder: Path, data_identifier: str, *, fold: int | str, command: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return training and validation cases of a fold.

    Args:
        folder: Pre-processed folder of the dataset.
        data_identifier: Folder of the configuration's cases in it.
        fold: Number of a fold, or "all": train and validate on all cases.
        command: What pre-processes the cases, for the error texts.

    Raises:
        ValueError: If there is no such fold or cases of it are not pre-processed.
    """
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    cases = folder / data_identifier
    if not cases.is_dir() or not any(cases.iterdir()):
        raise ValueError(f"{cases}: no pre-processed cases; run {command}")
    available = sorted(infer_dataset_class(str(cases)).get_identifiers(str(cases)))
    if fold == "all":
        return tuple(available), tuple(available)
    if not str(fold).isdigit():
        raise ValueError(f'fold {fold}: no such fold; name it by its number, from 0, or take "all"')
    splits = _splits(folder, available)
    if int(fold) >= len(splits):
        raise ValueError(f"{folder.name}: there is no fold {fold}; the split has folds 0 to {len(splits) - 1}")
    training, validation = (tuple(str(case) for case in splits[int(fold)][part]) for part in ("train", "val"))
    missing = sorted({*training, *validation} - set(available))
    if missing:
        raise ValueError(
            f"{cases}: {len(missing)} cases of fold {fold} are not pre-processed ({', '.join(missing[:3])}"
            f"{', …' if len(missing) > 3 else ''}); run {command} or correct {folder / 'splits_final.json'}"
        )
    return training, validation


def _splits(folder: Path, available: list[str]) -> list[dict[str, list[str]]]:
    """Return the dataset's split, or the one that nnUNetTrainer.do_split would write."""
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    file = folder / "splits_final.json"
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    if len(available) < 5:
        raise ValueError(
            f'{folder.name}: {len(available)} cases, too few for nnU-Net\'s five folds; take fold "all" or write {file}'
        )
    return generate_crossval_split(available, seed=12345, n_splits=5)
