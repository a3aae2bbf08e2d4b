"""Training and validation cases of a labelled dataset, as nnU-Net has split them or would; nothing is written."""

from pathlib import Path

from nnunetv2_voco.splits import read_splits


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
    file = folder / "splits_final.json"
    if len(available) < 5 and not file.is_file():
        raise ValueError(
            f'{folder.name}: {len(available)} cases, too few for nnU-Net\'s five folds; take fold "all" or write {file}'
        )
    splits = read_splits(folder, available)
    if int(fold) >= len(splits):
        raise ValueError(f"{folder.name}: there is no fold {fold}; the split has folds 0 to {len(splits) - 1}")
    training, validation = (tuple(str(case) for case in splits[int(fold)][part]) for part in ("train", "val"))
    missing = sorted({*training, *validation} - set(available))
    if missing:
        raise ValueError(
            f"{cases}: {len(missing)} cases of fold {fold} are not pre-processed ({', '.join(missing[:3])}"
            f"{', …' if len(missing) > 3 else ''}); run {command} or correct {file}"
        )
    return training, validation
