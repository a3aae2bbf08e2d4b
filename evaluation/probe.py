"""The frozen-encoder probe: does an encoder carry anatomy, without fine-tuning it?

The features of a frozen encoder at single voxels are classified by organ, learned from a few labelled cases, tested on
others, and the same is done with random encoders of the same shape.
"""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from nnunetv2_voco.device import usable_device
from nnunetv2_voco.encoder import check_input_size
from nnunetv2_voco.evaluation.probe_classify import CLASSIFIERS, FittedProbe, Tally, Voxels
from nnunetv2_voco.evaluation.probe_data import ProbeDataset, Window
from nnunetv2_voco.evaluation.probe_scores import Scores
from nnunetv2_voco.features import features_at
from nnunetv2_voco.foreign import open_checkpoint
from nnunetv2_voco.mismatch import input_mismatches
from nnunetv2_voco.report import TransferReport
from nnunetv2_voco.target import Target, dataset_folder, read_plans, read_target
from nnunetv2_voco.transfer import MINIMUM_SHARE, load_encoder

LARGEST_WINDOW = 96
"""Edge in voxels beyond which a window is not taken by itself, so that a probe takes minutes on a CPU."""

MOST_TEST_CASES = 12

ENCODERS = ("pre-trained", "random")


@dataclass(frozen=True, kw_only=True)
class ProbeRequest:
    """What a user asks for.

    Attributes:
        checkpoint: File, or "hf://owner/name[/file]".
        dataset: Name or number of a pre-processed dataset.
        configuration: Its configuration.
        plans: Name of its plans.
        labelled: Cases that the classifiers learn from.
        test: Cases they are tested on; half of the dataset but at most `MOST_TEST_CASES` if None.
        seeds: Repetitions, each with other labelled cases and another random encoder.
        windows: Windows per case.
        window_size: Their edge lengths in voxels; the plan's patch, at most `LARGEST_WINDOW`, if None.
        voxels: Most voxels of each class per case.
        across_families: As in `load_encoder`.
        insist: Go on however small a share of the encoder is loaded.
        device: Where the encoder runs.
    """

    checkpoint: str
    dataset: str
    configuration: str = "3d_fullres"
    plans: str = "nnUNetPlans"
    labelled: int = 5
    test: int | None = None
    seeds: int = 3
    windows: int = 2
    window_size: tuple[int, int, int] | None = None
    voxels: int = 200
    across_families: bool = False
    insist: bool = False
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What was found.

    Attributes:
        labels: Names of the classes.
        scores: By classifier, then by encoder ("pre-trained", "random").
        transfer: What of the checkpoint was loaded.
        mismatches: In words, where the plan's images differ from those of pre-training.
        test_cases: Names of the cases tested on.
        labelled_cases: For each seed the cases learned from.
        window_size: Edge lengths of the windows, (z, y, x).
        seconds: How long it took.
    """

    labels: tuple[str, ...]
    scores: Mapping[str, Mapping[str, Scores]]
    transfer: TransferReport
    mismatches: tuple[str, ...]
    test_cases: tuple[str, ...]
    labelled_cases: tuple[tuple[str, ...], ...]
    window_size: tuple[int, int, int]
    seconds: float


def probe(request: ProbeRequest, *, say: Callable[[str], Any] = lambda text: None) -> ProbeResult:
    """Run the probe.

    Args:
        request: What is asked for.
        say: Called with lines for a person while it runs.

    Raises:
        FileNotFoundError: If checkpoint, dataset or its pre-processed cases are missing.
        ValueError: If the weights do not fit the plan, or the request does not fit the dataset or the machine.
    """
    started = time.monotonic()
    device = usable_device(request.device)
    checkpoint = open_checkpoint(request.checkpoint)
    folder = dataset_folder(request.dataset)
    plans = read_plans(folder, request.plans)
    target = read_target(folder, plans, request.configuration)
    window_size = settle_window(request, target)
    dataset = ProbeDataset(folder, plans, configuration=request.configuration)
    test_cases, labelled_cases = split_cases(dataset.cases, request)
    mismatches = tuple(input_mismatches(checkpoint, plans, request.configuration))
    for mismatch in mismatches:
        say(f"note: {mismatch}")

    def read(encoder: nn.Module, case: str) -> Voxels:
        windows = dataset.windows(
            case, size_vox=window_size, count=request.windows, voxels_per_class=request.voxels, seed=0
        )
        return voxel_features(encoder, windows, device=device)

    tallies: dict[str, dict[str, list[list[Tally]]]] = {kind: {name: [] for name in ENCODERS} for kind in CLASSIFIERS}
    known: dict[str, Voxels] = {}
    for seed, labelled in enumerate(labelled_cases):
        network = build_seeded(target, seed)
        encoders = {"random": copy.deepcopy(network.get_submodule("encoder"))}
        report = load_encoder(
            network,
            checkpoint,
            across_families=request.across_families,
            minimum_share=0 if request.insist else MINIMUM_SHARE,
        )
        encoders["pre-trained"] = network.get_submodule("encoder")
        if seed == 0:
            say(str(report))
        if report.share < 1:  # what stays random is another in each seed
            known.clear()
        for name, encoder in encoders.items():
            memory = known if name == "pre-trained" else {}
            encoder.to(device).eval()
            for case in (*labelled, *test_cases):
                if case not in memory:
                    memory[case] = read(encoder, case)
            for kind in CLASSIFIERS:
                fitted = FittedProbe(kind, [memory[case] for case in labelled], num_classes=len(dataset.labels))
                tallies[kind][name].append([fitted.tally(memory[case]) for case in test_cases])
        say(f"seed {seed + 1} of {len(labelled_cases)} after {time.monotonic() - started:.0f} s")
    return ProbeResult(
        labels=tuple(dataset.labels),
        scores={kind: {name: Scores.of(cases) for name, cases in of.items()} for kind, of in tallies.items()},
        transfer=report,
        mismatches=mismatches,
        test_cases=test_cases,
        labelled_cases=labelled_cases,
        window_size=window_size,
        seconds=time.monotonic() - started,
    )


def settle_window(request: ProbeRequest, target: Target) -> tuple[int, int, int]:
    """Return the edge lengths of a window that the planned network can take.

    Raises:
        ValueError: If the configuration is 2D or a cascade's second stage, or the network cannot take the window asked
            for.
    """
    if not target.is_3d:
        raise ValueError(f"configuration {request.configuration} is 2D; take a 3D one, such as -c 3d_fullres")
    if target.num_label_channels:
        raise ValueError(
            f"configuration {request.configuration} needs the labels of the cascade's first stage; "
            "probe 3d_fullres or 3d_lowres"
        )
    stride = target.architecture.total_stride
    planned = np.maximum(np.minimum(target.patch_size, LARGEST_WINDOW) // stride, 1) * stride
    z, y, x = (int(n) for n in request.window_size or planned)
    check_input_size(target.architecture, (z, y, x))
    return z, y, x


def split_cases(cases: tuple[str, ...], request: ProbeRequest) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return the test cases, the same in all seeds, and for each seed labelled cases among the others.

    Raises:
        ValueError: If there are too few cases.
    """
    for name in ("labelled", "seeds", "windows", "voxels"):
        if getattr(request, name) < 1:
            raise ValueError(f"--{name} {getattr(request, name)}: at least 1 is needed")
    test = min(MOST_TEST_CASES, len(cases) // 2) if request.test is None else request.test
    if test < 2 or test + request.labelled > len(cases):
        raise ValueError(
            f"{len(cases)} pre-processed cases cannot give {request.labelled} labelled and {max(test, 2)} test cases; "
            "change --labelled and --test"
        )
    order = np.random.default_rng(7).permutation(len(cases))
    chosen, pool = order[:test], np.sort(order[test:])
    labelled = [np.random.default_rng((seed, 8)).choice(pool, request.labelled, False) for seed in range(request.seeds)]
    return tuple(cases[i] for i in chosen), tuple(tuple(cases[i] for i in drawn) for drawn in labelled)


def build_seeded(target: Target, seed: int) -> nn.Module:
    """Build the planned network with random weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return target.build()


@torch.inference_mode()
def voxel_features(encoder: nn.Module, windows: list[Window], *, device: torch.device) -> Voxels:
    """Pass windows through an encoder and read off the features of their voxels."""
    features = []
    for window in windows:
        maps = encoder(torch.from_numpy(window.image)[None].to(device))
        features.append(features_at(maps, window.places_N3, window.image.shape[1:]).cpu().numpy())
    return Voxels(
        np.concatenate(features),
        np.concatenate([window.classes_N for window in windows]),
        np.concatenate([window.weights_N for window in windows]),
    )
