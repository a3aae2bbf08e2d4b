"""Measures pre-processing of one CT, from file to cache, against nnU-Net and MONAI.

    pip install "nnunetv2_voco[benchmarks]"
    python benchmarks/preprocessing.py [CT.nii.gz …] [--spacing 1.5] [--repeats 5]

Three contenders bring each NIfTI file to the same spacing and store it, with one thread each, as all three are run in
many processes (without files, a phantom is made):

- ours: read and check, orient, find the body, resample linearly, store int16 HU, compressed;
- nnU-Net: `DefaultPreprocessor.run_case_save` with the planner's default resampling (cubic) and CTNormalization;
- MONAI: load, orient, Spacingd (bilinear), window, crop to foreground, stored by a PersistentDataset as float32: the
  pre-processing of the VoCo authors' code.

Every repeat is a process of its own, warmed up on a small volume; the order changes from repeat to repeat. Then the
voxels of ours are compared, inside the body and in HU, with those of nnU-Net's resampling function on the same grid: as
nnU-Net calls it (cubic; where slices are thick, nearest across them), and with linear interpolation.

Goals: an eighth of nnU-Net's time, half of MONAI's.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import describe_machine, in_own_process, median, print_comparison, take_turns

from nnunetv2_voco.pretrain.phantom_files import write_phantoms

CONTENDERS = ("ours", "nnU-Net", "MONAI")
WINDOW_HU = (-175, 250)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", metavar="CT.nii.gz", nargs="*", help="files; a phantom if none is given")
    parser.add_argument("--spacing", type=float, default=1.5, metavar="MM", help="edge of the stored voxels")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each contender and file")
    parser.add_argument("--quick", action="store_true", help="one repeat, the first file only")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = args.files or [
            str(f) for f in write_phantoms(folder, number=1, spacing_mm=4 if args.quick else 2, dicom=False)
        ]
        compare(files[:1] if args.quick else files, 1 if args.quick else args.repeats, args.spacing)


def compare(files: Sequence[str], repeats: int, spacing: float) -> None:
    print(describe_machine())
    ratios: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for file in files:
        name = Path(file).name
        costs = take_turns({c: partial(in_own_process, work_of, c, file, spacing) for c in CONTENDERS}, repeats)
        print(f"\n{name}, {repeats} repeats, to {spacing:g} mm; bytes stored: "
              + ", ".join(f"{c} {median(costs[c], 'result') / 1e6:.1f} MB" for c in CONTENDERS))  # fmt: skip
        for contender, ratio in print_comparison(costs, ours="ours").items():
            ratios[contender].append(ratio)
        for title, (middle, most) in in_own_process(agreement_of, file, spacing).result.items():
            print(f"From nnU-Net's function ({title}) in the body: median {middle:.1f}, 95 % within {most:.1f} HU")
    print(f"\nMedian over {len(files)} files, processor time: "
          + ", ".join(f"{c} {np.median(ratios[c]):.1f} times ours" for c in CONTENDERS[1:]))  # fmt: skip


def work_of(contender: str, file: str, spacing: float) -> Callable[[], int]:
    """The work on `file`, which returns the bytes it stored; warmed up on a small volume."""
    work = {"ours": ours, "nnU-Net": nnunet, "MONAI": monai}[contender](spacing)
    with tempfile.TemporaryDirectory() as folder:
        (small,) = write_phantoms(Path(folder) / "small", number=1, spacing_mm=6, dicom=False)
        work(str(small), folder)

    def store() -> int:
        with tempfile.TemporaryDirectory() as folder:
            work(file, folder)
            return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())

    return store


def ours(spacing: float) -> Callable[[str, str], Any]:
    from nnunetv2_voco.pretrain.cache import VolumeCache
    from nnunetv2_voco.pretrain.collect import process_volume
    from nnunetv2_voco.pretrain.discover import discover
    from nnunetv2_voco.pretrain.preprocess import Target

    target = Target(spacing_mm=(spacing,) * 3)

    def work(file: str, folder: str) -> None:
        cache = VolumeCache(folder, target)
        cache.create()
        (source,) = discover([file], modality="CT").sources
        record = process_volume(source, cache, target)
        if not record.usable:
            raise SystemExit(f"{file}: rejected, {record.reason}")

    return work


def nnunet(spacing: float) -> Callable[[str, str], Any]:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    plans, configuration = nnunet_plans(spacing)
    preprocessor = DefaultPreprocessor(verbose=False)

    def work(file: str, folder: str) -> None:
        preprocessor.run_case_save(f"{folder}/case", [file], None, plans, configuration, {})

    return work


def nnunet_plans(spacing: float, order: int = 3) -> tuple[Any, Any]:
    """nnU-Net's plans as its planner writes them for CT, as far as pre-processing reads them."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunetv2_voco.encoder import plain_architecture

    resampling = {"is_seg": False, "order": order, "order_z": 0, "force_separate_z": None}
    statistics = {"mean": 80.0, "std": 140.0, "percentile_00_5": -1000.0, "percentile_99_5": 1000.0}
    plans = PlansManager(
        {
            "plans_name": "benchmark",
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {"0": statistics},
            "configurations": {
                "3d_fullres": {
                    "spacing": [spacing] * 3,
                    "patch_size": [128, 128, 128],
                    "normalization_schemes": ["CTNormalization"],
                    "use_mask_for_norm": [False],
                    "resampling_fn_data": "resample_data_or_seg_to_shape",
                    "resampling_fn_data_kwargs": resampling,
                    "resampling_fn_seg": "resample_data_or_seg_to_shape",
                    "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
                    "architecture": plain_architecture().to_plans(),
                }
            },
        }
    )
    return plans, plans.get_configuration("3d_fullres")


def monai(spacing: float) -> Callable[[str, str], Any]:
    from monai import transforms
    from monai.data import PersistentDataset

    pipeline = transforms.Compose(
        [
            transforms.LoadImaged("image"),
            transforms.EnsureChannelFirstd("image"),
            transforms.Orientationd("image", axcodes="RAS"),
            transforms.Spacingd("image", pixdim=(spacing,) * 3, mode="bilinear"),
            transforms.ScaleIntensityRanged("image", *WINDOW_HU, 0.0, 1.0, clip=True),
            transforms.CropForegroundd("image", source_key="image"),
        ]
    )

    def work(file: str, folder: str) -> None:
        PersistentDataset([{"image": file}], pipeline, cache_dir=folder)[0]

    return work


def agreement_of(file: str, spacing: float) -> Callable[[], dict[str, tuple[float, float]]]:
    """Differences from nnU-Net's resampling inside the body: median and 95th percentile of absolute HU.

    nnU-Net's function stretches the voxels so that they fill the volume; all are compared on its grid, laid over the
    body's box.
    """
    import SimpleITK as sitk
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape, resample_data_or_seg_to_shape

    from nnunetv2_voco.pretrain.body import find_body
    from nnunetv2_voco.pretrain.discover import discover
    from nnunetv2_voco.pretrain.preprocess import AIR_HU, HIGHEST_HU, body_grid, nearest, orient, resample
    from nnunetv2_voco.pretrain.read import read_volume

    def compare() -> dict[str, tuple[float, float]]:
        (source,) = discover([file], modality="CT").sources
        image = orient(read_volume(source).image)
        mask = find_body(image)
        old_spacing, new_spacing = np.array(image.GetSpacing()[::-1]), np.full(3, spacing)
        box = body_grid(mask, image, spacing_xyz=list(image.GetSpacing()))
        first, size = image.TransformPhysicalPointToIndex(box.GetOrigin()), box.GetSize()
        voxels = sitk.GetArrayFromImage(image[tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))])
        shape = compute_new_shape(voxels.shape, old_spacing, new_spacing)
        step_mm = old_spacing * voxels.shape / shape
        grid = sitk.Image([int(n) for n in shape[::-1]], sitk.sitkUInt8)
        grid.SetSpacing(step_mm[::-1].tolist())
        start_mm = np.array(image.TransformIndexToPhysicalPoint(first)) + 0.5 * (step_mm - old_spacing)[::-1]
        grid.SetOrigin(start_mm.tolist())
        inside = nearest(mask, grid) > 0

        def hu(values: np.ndarray) -> np.ndarray:
            return np.clip(values, AIR_HU, HIGHEST_HU)[inside]

        def nnunet_hu(order: int) -> np.ndarray:
            data = voxels[None].astype(np.float32)
            kwargs = {"order": order, "order_z": 0, "force_separate_z": None if order == 3 else False}
            return hu(resample_data_or_seg_to_shape(data, shape, old_spacing, new_spacing, **kwargs)[0])

        ours = hu(np.rint(sitk.GetArrayFromImage(resample(image, grid))))
        peers = {"cubic, as it is called": nnunet_hu(3), "linear": nnunet_hu(1)}
        return {name: tuple(np.percentile(np.abs(ours - peer), (50, 95))) for name, peer in peers.items()}

    return compare


if __name__ == "__main__":
    main()
