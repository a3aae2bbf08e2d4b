"""Classification of places by the features of a pre-trained encoder, beside random encoders.

    python docs/examples/classification.py CHECKPOINT RAW_DATASET

Does a place show tumour or other tissue? From the masks of a labelled nnU-Net dataset (such as the sarcoma CTs) places
inside the mask and places of other tissue in the same slices are written into a table with a column `label`;
`voco_embed --points` embeds them; a logistic regression is cross-validated, the cases kept apart. The table can be any
other with a label column.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nnunetv2_voco.embedding.cli import main as voco_embed

PLACES_PER_CASE = 4
TISSUE_HU = -200
RANDOM_ENCODERS = 2
FOLDS = 5


def draw_places(dataset: Path, cases: int) -> pd.DataFrame:
    """Draw places inside and outside the masks, by voxel (i, j, k) of the file."""
    rng = np.random.default_rng(0)
    rows = []
    for label_file in sorted((dataset / "labelsTr").glob("*.nii.gz"))[:cases]:
        image_file = label_file.name.replace(".nii.gz", "_0000.nii.gz")
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(label_file))) > 0
        hu = sitk.GetArrayFromImage(sitk.ReadImage(str(dataset / "imagesTr" / image_file)))
        inside = np.argwhere(mask)
        for z, y, x in inside[rng.integers(len(inside), size=PLACES_PER_CASE)]:
            other = np.argwhere(~mask[z] & (hu[z] > TISSUE_HU))
            other_y, other_x = other[rng.integers(len(other))]
            rows.append((image_file, x, y, z, "tumour"))
            rows.append((image_file, other_x, other_y, z, "other"))
    return pd.DataFrame(rows, columns=["volume", "i", "j", "k", "label"])


def cross_validate(table: pd.DataFrame) -> np.ndarray:
    """Whether each row is put right by a linear classifier that never saw its case, bool (rows,)."""
    features = table.filter(regex=r"^f\d+$").to_numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=1000))
    predicted = cross_val_predict(model, features, table["label"], groups=table["volume"], cv=GroupKFold(FOLDS))
    return predicted == table["label"].to_numpy()


def interval(values: np.ndarray, cases: np.ndarray) -> str:
    """Mean with its 95 % interval, by drawing cases anew; every case has as many rows."""
    per_case = pd.Series(values.astype(float)).groupby(cases).mean().to_numpy()
    draws = np.random.default_rng(0).choice(per_case, (5000, len(per_case))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{per_case.mean():.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("dataset", type=Path, help="raw nnU-Net dataset, with imagesTr and labelsTr")
    parser.add_argument("--cases", type=int, default=20)
    args = parser.parse_args()
    right = {}
    with tempfile.TemporaryDirectory() as folder:
        points, output = Path(folder) / "points.csv", Path(folder) / "features.csv"
        draw_places(args.dataset, args.cases).to_csv(points, index=False)
        encoders = {"pre-trained": []} | {f"random {s}": ["--untrained", str(s)] for s in range(RANDOM_ENCODERS)}
        for name, options in encoders.items():
            images = str(args.dataset / "imagesTr")
            voco_embed([args.checkpoint, images, "-o", str(output), "--points", str(points), *options])
            table = pd.read_csv(output)
            right[name] = cross_validate(table)
    print(f"\n{len(table)} places of {table['volume'].nunique()} cases, half of them tumour; {FOLDS} folds of cases")
    for name, values in right.items():
        print(f"{name:12} accuracy {interval(values, table['volume'].to_numpy())}")
    random = np.mean([values for name, values in right.items() if name != "pre-trained"], axis=0)
    print(f"difference   {interval(right['pre-trained'] - random, table['volume'].to_numpy())}")


if __name__ == "__main__":
    main()
