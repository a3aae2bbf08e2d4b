"""Measures what a cache's index costs as the cache grows: 160,000 volumes against 13.

    python benchmarks/index.py [--volumes 160000] [--repeats 5] [--samples 100]

Caches of 13 and of 160,000 volumes are simulated from four volumes of noise: as many files (hard links, so that opening
one costs what it costs in a folder of that size), and as many rows of the index, in parts of 1,000 as `voco_preprocess`
writes them, with keys and digests of their own. For each it prints

- open: seconds to open the merged index, and to find every key in it; the memory that takes, and that of the process;
- prepare: seconds and peak memory of all that `voco_pretrain --cache CACHE` does before the first step: collect,
  split, statistics of intensities, volumes.json, plan.json, volumes.png;
- continue: seconds until a continued run has its volumes;
- samples a second of processor time, from the file to the augmented crops: medians over repeats in turn, their ratio.

Every measurement is a process of its own. Goals: open in 5 s and 500 MB; sampling as fast as from 13 volumes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from measure import memory_mb

SMALL = 13
PARTS_OF = 1000
SPACING = (3.0, 3.0, 3.0)
SHAPE = (96, 128, 128)
CROP = (32, 32, 32)
MENDED = [json.dumps([f"padding of -3024 set to -1024 ({share} % of voxels)"]) for share in range(40)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=160_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--samples", type=int, default=100, help="samples in each repeat")
    parser.add_argument("--folder", help="where the caches are made, and removed again (default: temporary files)")
    parser.add_argument("--measure", nargs=3, metavar=("WHAT", "CACHE", "NUMBER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        what, cache, number = args.measure
        print(json.dumps(MEASUREMENTS[what](Path(cache), int(number))))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        compare(Path(folder), args.volumes, args.repeats, args.samples)


def compare(folder: Path, volumes: int, repeats: int, samples: int) -> None:
    caches = {n: simulated(folder, n) for n in (SMALL, volumes)}
    rates: dict[int, list[float]] = {n: [] for n in caches}
    others: dict[int, dict[str, list[float]]] = {n: {} for n in caches}
    for _ in range(repeats):
        for n, cache in caches.items():
            for what in ("open", "prepare"):
                for name, value in measure(what, cache, n).items():
                    others[n].setdefault(name, []).append(value)
            rates[n].append(measure("samples", cache, samples)["samples a second"])
    print(f"\n{'median of ' + str(repeats):44s}" + "".join(f"{n:>12,d}" for n in caches) + " volumes")
    for name in others[SMALL]:
        print(f"{name:44s}" + "".join(f"{np.median(others[n][name]):12.2f}" for n in caches))
    print(f"{'samples a second':44s}" + "".join(f"{np.median(rates[n]):12.1f}" for n in caches))
    ratio = np.median(np.array(rates[volumes]) / np.array(rates[SMALL]))
    print(f"samples a second from {volumes:,d} volumes are {ratio:.2f} of those from {SMALL} (median of ratios)")


def simulated(folder: Path, volumes: int) -> Path:
    """Make a cache of a few volumes and multiply them."""
    from nnunetv2_voco.atomic import write_json
    from nnunetv2_voco.pretrain.cache import FEW, VolumeCache, volume_key
    from nnunetv2_voco.pretrain.preprocess import HISTOGRAM_EDGES, PreparedVolume, Target
    from nnunetv2_voco.pretrain.segments import pack, store_segment

    root, rng = folder / f"cache_{volumes}", np.random.default_rng(0)
    target = Target(spacing_mm=SPACING)
    cache, pattern = VolumeCache(root, target), VolumeCache(folder / f"pattern_{volumes}", target)
    records = []
    for number in range(4):
        array = np.rint(rng.normal(40, 15, SHAPE)).astype(np.int16)
        counts = np.histogram(array, bins=HISTOGRAM_EDGES)[0] + rng.integers(0, 40, len(HISTOGRAM_EDGES) - 1)
        volume = PreparedVolume(array, np.full([n // 8 for n in SHAPE], 255, np.uint8), counts, f"{number}")
        geometry = {"original_shape": (300, 512, 512), "original_spacing_mm": (1.25, 0.7812, 0.7812)}
        records.append(pattern.write(geometry, volume, key=f"{number}"))
    cache.create()
    for i in range(256):
        (cache.folder / f"{i:02x}").mkdir()
    (cache.folder / "index").mkdir()
    started = time.perf_counter()
    keys = [volume_key(f"simulated {number}") for number in range(volumes)]
    for number, key in enumerate(keys):
        record = records[number % len(records)]
        os.link(pattern.path(record.key, ".b2nd"), cache.path(key, ".b2nd"))
        if volumes <= FEW:  # a run that is continued looks at each of so few
            write_json(cache.path(key, ".json"), asdict(replace(record, key=key)))
    packed = [pack(np.asarray(r.histogram) + rng.integers(0, 9, len(r.histogram))) for r in records for _ in range(25)]
    linked = time.perf_counter()
    for first in range(0, volumes, PARTS_OF):
        part = np.arange(first, min(first + PARTS_OF, volumes))
        store_segment(cache.folder / "index", *simulated_rows(part, [keys[n] for n in part], records, packed, rng))
    written = time.perf_counter()
    cache.merge_index()
    size = sum(file.stat().st_size for file in (cache.folder / "index").iterdir())
    print(
        f"{volumes:,d} volumes: their files in {linked - started:.1f} s; {-(-volumes // PARTS_OF)} parts in "
        f"{written - linked:.1f} s, merged in {time.perf_counter() - written:.1f} s: {size / 1e6:.1f} MB",
        flush=True,
    )
    return root


def simulated_rows(
    numbers: np.ndarray, keys: list[str], records: list[Any], packed: list[bytes], rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], list[str], list[bytes]]:
    """Make the columns, texts and histograms of a part, as `add_segment` makes them of records."""
    rows = [records[number % len(records)] for number in numbers]
    histograms = [packed[number % len(packed)] for number in numbers]
    columns = {
        "key": np.array([key.encode() for key in keys], np.bytes_),
        "content": np.array([f"{n:020x}".encode() for n in np.sort(rng.integers(2**60, size=len(rows)))], np.bytes_),
        "digest": np.array([f"{n:024x}".encode() for n in rng.integers(2**60, size=len(rows))], np.bytes_),
        "shape": np.array([r.shape for r in rows], np.int32),
        "fill": np.array([r.fill for r in rows], np.int16),
        "bytes": np.array([r.bytes for r in rows], np.int64),
        "original_shape": np.array([r.original_shape for r in rows], np.int32),
        "original_spacing_mm": np.array([r.original_spacing_mm for r in rows], np.float64),
        "mended": np.where(numbers % 3 == 0, numbers % len(MENDED), -1).astype(np.int32),
        "reason": np.full(len(rows), -1, np.int32),
        "histogram_size": np.array([len(p) for p in histograms], np.int64),
    }
    return columns, MENDED, histograms


def measure(what: str, cache: Path, number: int) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--measure", what, str(cache), str(number)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def opening(root: Path, volumes: int) -> dict[str, float]:
    from nnunetv2_voco.pretrain.cache import volume_key
    from nnunetv2_voco.pretrain.index import VolumeIndex

    keys = [volume_key(f"simulated {number}") for number in range(volumes)]
    (folder,) = root.glob("*/index")
    before, started = memory_mb("VmRSS"), time.perf_counter()
    index = VolumeIndex.open(folder)
    opened = time.perf_counter()
    rows = index.rows(keys)
    found = time.perf_counter()
    assert len(index) == volumes
    assert (rows >= 0).all()
    return {
        "open: seconds": opened - started,
        "open: seconds to find every key": found - opened,
        "open: MB more than before": memory_mb("VmRSS") - before,
        "open: MB of the whole process": memory_mb("VmRSS"),
    }


def preparing(root: Path, volumes: int) -> dict[str, float]:
    from nnunetv2_voco.pretrain.cache import VolumeCache
    from nnunetv2_voco.pretrain.run import prepare  # noqa: F401  # what follows is not to pay for the import

    with tempfile.TemporaryDirectory() as out:
        before, started = memory_mb("VmHWM"), time.perf_counter()
        plan = prepared(root, Path(out), resume=False)
        ready, peak = time.perf_counter(), memory_mb("VmHWM")
        plan = prepared(root, Path(out), resume=True)
        cache = VolumeCache(root, plan.target)
        assert len(cache.records(plan.training)) + len(cache.records(plan.validation)) == volumes
        continued = time.perf_counter()
    return {
        "prepare: seconds": ready - started,
        "prepare: MB more than before": peak - before,
        "prepare: MB of the whole process": peak,
        "continue: seconds": continued - ready,
    }


def prepared(root: Path, out: Path, *, resume: bool):  # noqa: ANN201
    from rich.console import Console

    from nnunetv2_voco.pretrain.run import Request, prepare

    settings = {"spacing": SPACING, "crop_size": CROP, "features": (8, 16, 32), "device": "cpu"}
    request = Request(folders=(), out=out, cache=root, settings=settings, resume=resume)
    with open(os.devnull, "w") as nowhere:
        return prepare(request, Console(file=nowhere))[2]


def sampling(root: Path, samples: int) -> dict[str, float]:
    import torch

    from nnunetv2_voco.pretrain.augment import crop_transforms
    from nnunetv2_voco.pretrain.cache import VolumeCache
    from nnunetv2_voco.pretrain.dataset import CropPlan, PretrainDataset
    from nnunetv2_voco.pretrain.intensity import ct_intensity, window_properties
    from nnunetv2_voco.pretrain.preprocess import Target

    torch.set_num_threads(1)
    cache = VolumeCache(root, Target(spacing_mm=SPACING))
    index = cache.open_index()
    records = cache.records([key.decode() for key in index.columns["key"]])
    plan = CropPlan(grid=(1, 3, 3), size_vox=CROP, random_crops=2, min_body_crop=0.2, min_body_base=0.05)
    intensity = ct_intensity(window_properties((-175.0, 250.0)))
    transform = crop_transforms(shift_amplitude=0.1, isotropic_plane=True)
    dataset = PretrainDataset(cache, records, plan=plan, intensity=intensity, transform=transform, seed=0)
    seconds = []
    for number in range(10 + samples):
        started = time.process_time()
        dataset[number]
        seconds.append(time.process_time() - started)
    return {"samples a second": 1 / float(np.median(seconds[10:]))}


MEASUREMENTS: dict[str, Callable[[Path, int], dict[str, float]]] = {
    "open": opening,
    "prepare": preparing,
    "samples": sampling,
}

if __name__ == "__main__":
    main()
