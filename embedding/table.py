"""The table of embeddings, written as parquet or CSV."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nnunetv2_voco.atomic import write_atomically

ENDINGS = (".parquet", ".csv")


def check_output(path: Path) -> None:
    """Check before any work that a table can be written.

    Raises:
        ValueError: If the ending is unknown, or parquet is asked for without pyarrow.
        FileNotFoundError: If the folder does not exist.
    """
    if path.suffix not in ENDINGS:
        raise ValueError(f"{path}: expected a name that ends in {' or '.join(ENDINGS)}")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"{path}: its folder does not exist")
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ValueError(
            f'{path}: writing parquet needs pyarrow; pip install "nnunetv2_voco[embed]", or name a .csv file'
        )


def feature_names(size: int) -> list[str]:
    """Return f0000, f0001 and so on: the names of the columns."""
    return [f"f{index:04d}" for index in range(size)]


def write_table(
    path: Path, described: Mapping[str, Sequence[Any]], features_NE: np.ndarray, *, notes: Mapping[str, Any]
) -> None:
    """Write one row per volume or place, atomically.

    Args:
        path: Ending as in `ENDINGS`.
        described: Columns that say what a row is.
        features_NE: float32, one column for each feature.
        notes: What the features are; kept in a parquet file (`DataFrame.attrs`), left out of CSV.
    """
    features = pd.DataFrame(features_NE.astype(np.float32), columns=feature_names(features_NE.shape[1]))
    table = pd.concat([pd.DataFrame(described, index=features.index), features], axis=1)
    table.attrs = dict(notes)
    if path.suffix == ".parquet":
        write_atomically(path, lambda temporary: table.to_parquet(temporary, engine="pyarrow", index=False))
    else:
        write_atomically(path, lambda temporary: table.to_csv(temporary, index=False))
