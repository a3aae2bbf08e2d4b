import json
import pickle
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.run.run_training import get_trainer_from_args
from torch.utils.data import DataLoader

from nnunetv2_voco.pretrain.labelled.patches import (
    FOREGROUND_SHARE,
    LabelledDataset,
    LabelledPatch,
    join_labelled,
    join_labelled_batches,
)
from nnunetv2_voco.pretrain.labelled.sets import IGNORE_LABEL, LabelledData, read_labelled_data
from tests.nnunetv2_voco.planned_dataset import write_plans
from tests.pretrain.labelled_datasets import (
    FIRST,
    LABELS,
    SECOND,
    SHAPE,
    make_labelled_datasets,
    stored_labels,
    write_case,
    write_dataset,
)

SCALES = [[1, 1, 1], [0.5, 0.5, 0.5], [0.5, 0.25, 0.25]]
PATCH = (16, 16, 8)  # higher than the cases, so that some is padding


@pytest.fixture
def preprocessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_labelled_datasets(tmp_path, monkeypatch)


def read(*datasets: str, fold: int | str = 0) -> LabelledData:
    return read_labelled_data(datasets or (FIRST, SECOND), configuration="3d_fullres", plans="nnUNetPlans", fold=fold)


def patches(data: LabelledData, part="training", patch=PATCH, *, mirror=True, seed=3) -> LabelledDataset:
    return LabelledDataset(data, part=part, patch_size=patch, deep_supervision_scales=SCALES, mirror=mirror, seed=seed)


def equal(one: LabelledPatch, other: LabelledPatch) -> bool:
    pairs = zip((one.image, *one.targets, one.set_index), (other.image, *other.targets, other.set_index), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def write_single(preprocessed: Path, segmentation: np.ndarray, labels: dict[str, int]) -> LabelledData:
    """A dataset of one case."""
    write_dataset(preprocessed / "Dataset103_Single", labels)
    write_case(preprocessed / "Dataset103_Single", 0, segmentation)
    return read("103", fold="all")


@pytest.mark.parametrize("part", ["training", "validation"])
def test_patch_has_the_promised_shapes(preprocessed, part):
    patch = patches(read(), part)[0]
    assert patch.image.shape == (1, 16, 16, 8)
    assert patch.image.dtype == torch.float32
    assert [tuple(target.shape) for target in patch.targets] == [(1, 16, 16, 8), (1, 8, 8, 4), (1, 8, 4, 2)]
    assert all(target.dtype == torch.int16 for target in patch.targets)
    assert patch.set_index.shape == ()
    assert patch.set_index.dtype == torch.int64


def test_validation_patches_hold_the_stored_voxels_and_their_classes(preprocessed):
    data = read(fold="all")
    seen: set[int] = set()
    for patch in (patches(data, "validation")[number] for number in range(20)):
        one = data.sets[int(patch.set_index)]
        brightness = patch.image.numpy().ravel().astype(int)
        inside = brightness > 0
        case, voxel = np.divmod(brightness[inside] - 1, 10000)
        assert len(set(case)) == 1
        stored = stored_labels(one.folder, f"case_{case[0]}")[voxel]
        expected = [0 if value == -1 else one.united[int(value)] for value in stored]
        target = patch.targets[0].numpy().ravel()
        np.testing.assert_array_equal(target[inside], expected)
        assert not target[~inside].any()  # padding is background, as nnU-Net has it
        assert 0 < inside.mean() < 1
        seen |= set(target.tolist())
    assert seen == {IGNORE_LABEL, 0, 1, 2, 3, 4}


def test_training_patches_hold_classes_of_their_dataset_alone(preprocessed):
    data = read()
    drawn = [patches(data)[number] for number in range(24)]
    for index, one in enumerate(data.sets):
        values = {int(v) for p in drawn if p.set_index == index for target in p.targets for v in target.unique()}
        assert values == set(one.united.values())


@pytest.mark.parametrize("ignore", [{}, {"ignore": 2}])
@pytest.mark.parametrize("part", ["training", "validation"])
def test_padding_is_background_with_and_without_an_ignore_label(preprocessed, part, ignore):
    data = write_single(preprocessed, np.ones(SHAPE, int), {"background": 0, "organ": 1} | ignore)
    dataset = patches(data, part, (24, 24, 24))
    for number in range(6):
        assert set(dataset[number].targets[0].unique().tolist()) == {0, 1}


def test_unannotated_voxels_are_ignored_in_augmented_patches(preprocessed):
    labels = {"background": 0, "organ": 1, "ignore": 2}
    segmentation = np.full(SHAPE, 2)
    segmentation[7] = 1
    dataset = patches(write_single(preprocessed, segmentation, labels), patch=(8, 8, 8))
    for number in range(6):
        values, counts = dataset[number].targets[0].unique(return_counts=True)
        assert values[counts.argmax()] == IGNORE_LABEL


def test_same_number_gives_the_same_patch_in_any_order_and_process(preprocessed):
    dataset = patches(read())
    first = [dataset[number] for number in range(8)]
    torch.rand(3)
    np.random.rand(3)
    copy = pickle.loads(pickle.dumps(patches(read())))
    assert all(equal(copy[number], first[number]) for number in reversed(range(8)))
    helped = DataLoader(dataset, batch_sampler=[[7, 0], [3]], num_workers=2, collate_fn=join_labelled)
    batches = list(helped)
    assert equal(batches[0], join_labelled([first[7], first[0]]))
    assert equal(batches[1], join_labelled([first[3]]))


def test_drawing_patches_leaves_the_global_generators_alone(preprocessed):
    dataset = patches(read())
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    dataset[0]
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])


def test_blurred_patches_do_not_depend_on_which_convolution_was_faster(preprocessed):
    steps = [getattr(step, "transform", step) for step in patches(read()).transforms[0].transforms]
    assert [step.benchmark for step in steps if hasattr(step, "benchmark")] == [False]


def test_other_numbers_seeds_and_passes_give_other_patches(preprocessed):
    dataset = patches(read())
    cases = len(dataset.cases)
    first = dataset[0]
    again = next(n for n in range(cases, 2 * cases) if dataset.order[n] == dataset.order[0])
    for other in (dataset[1], dataset[again], patches(read(), seed=4)[0], patches(read(), "validation")[0]):
        assert not torch.equal(first.image, other.image)


@pytest.mark.parametrize("part", ["training", "validation"])
def test_every_case_comes_once_in_each_pass(preprocessed, part):
    data = read()
    dataset = patches(data, part)
    expected = sorted((index, case) for index, one in enumerate(data.sets) for case in getattr(one, part))
    for number_of_pass in range(3):
        numbers = range(number_of_pass * len(expected), (number_of_pass + 1) * len(expected))
        assert sorted(dataset.cases[dataset.order[number]] for number in numbers) == expected
    drawn = [int(dataset[number].set_index) for number in range(len(expected))]
    assert sorted(drawn) == [index for index, _ in expected]


@pytest.mark.parametrize("ignore", [{}, {"ignore": 2}])
def test_a_third_of_the_patches_is_around_foreground(preprocessed, ignore):
    segmentation = np.zeros(SHAPE, int)
    segmentation[7, 9, 9] = 1
    data = write_single(preprocessed, segmentation, {"background": 0, "organ": 1} | ignore)
    dataset = patches(data, "validation", (4, 4, 4))
    share = np.mean([bool(dataset[number].targets[0].any()) for number in range(300)])
    assert 0.33 - 0.09 < share < 0.33 + 0.09  # three standard deviations


def test_mirrored_patches_are_the_others_flipped_along_any_axes(preprocessed):
    plain, mirrored = patches(read(), mirror=False), patches(read(), mirror=True)
    flips = [axes for n in range(4) for axes in combinations((1, 2, 3), n)]
    seen = set()
    for number in range(16):
        one, other = plain[number], mirrored[number]
        (axes,) = [axes for axes in flips if torch.equal(one.image.flip(axes), other.image)]
        assert torch.equal(one.targets[0].flip(axes), other.targets[0])
        seen.add(axes)
    assert len(seen) > 4


@pytest.mark.parametrize("patch", [(16, 16, 16), (4, 16, 16)])
def test_sampling_and_augmentation_are_those_of_nnunets_trainer(preprocessed, patch):
    """A flat patch is turned slice by slice there."""
    content = json.loads((preprocessed / FIRST / "nnUNetPlans.json").read_text())
    content["configurations"]["3d_fullres"]["patch_size"] = patch
    write_plans(preprocessed / FIRST, content)
    trainer = get_trainer_from_args(FIRST, "3d_fullres", 0, "nnUNetTrainer", device=torch.device("cpu"))
    trainer._set_batch_size_and_oversample()
    loaders = [augmenter.data_loader for augmenter in trainer.get_dataloaders()]
    for theirs, part in zip(loaders, ("training", "validation"), strict=True):
        ours = LabelledDataset(
            read(FIRST), part=part, patch_size=patch, mirror=True, seed=0,
            deep_supervision_scales=trainer._get_deep_supervision_scales(),
        )  # fmt: skip
        assert sorted(case for _, case in ours.cases) == sorted(theirs.indices)
        assert ours.read_size == tuple(theirs.patch_size)
        assert theirs.oversample_foreground_percent == FOREGROUND_SHARE
        assert ours.labels[0].all_labels == trainer.label_manager.all_labels
        assert parameters(ours.transforms[0]) == parameters(theirs.transforms)


def parameters(transforms: BasicTransform) -> str:
    """All of nnU-Net's transforms but their trials of convolutions and what they remember; lists pass for tuples."""
    memory = r"{(?:[^{}]|{[^{}]*})*}"  # a dictionary, perhaps of dictionaries
    shown = re.sub(rf"benchmark(_use_fft)? = (True|False|{memory})|_grid_cache = {memory}", "", repr(transforms))
    return shown.translate(str.maketrans("[]", "()"))


def test_batches_have_a_leading_axis_and_join_to_larger_ones(preprocessed):
    dataset = patches(read())
    four = [dataset[number] for number in range(4)]
    by_default = list(DataLoader(dataset, batch_sampler=[[0, 1, 2], [3]]))  # targets are a list there
    whole = join_labelled(four)
    assert isinstance(whole.targets, tuple)
    assert whole.image.shape == (4, 1, 16, 16, 8)
    assert whole.targets[2].shape == (4, 1, 8, 4, 2)
    assert whole.set_index.tolist() == [int(patch.set_index) for patch in four]
    joined = join_labelled_batches(by_default)
    assert isinstance(joined.targets, tuple)
    assert equal(joined, whole)
    assert equal(join_labelled_batches([whole]), whole)


def test_labels_that_the_dataset_does_not_declare_are_refused(preprocessed):
    data = write_single(preprocessed, np.full(SHAPE, 9), LABELS[FIRST])
    with pytest.raises(ValueError, match=r"case_0: holds labels \[9\], which are not in dataset.json of Dataset103"):
        patches(data)[0]


def test_a_part_without_cases_is_refused(preprocessed):
    (preprocessed / FIRST / "splits_final.json").write_text('[{"train": ["case_0"], "val": []}]')
    with pytest.raises(ValueError, match=f"{FIRST}: no validation cases; take another fold"):
        patches(read(FIRST), "validation")
