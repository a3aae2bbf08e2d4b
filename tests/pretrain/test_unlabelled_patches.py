import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from torch.utils.data import default_collate

from nnunetv2_voco.pretrain.dataset import join_batches
from nnunetv2_voco.pretrain.intensity import ct_intensity, window_properties
from nnunetv2_voco.pretrain.labelled.patches import choose_augmentation, training_transforms
from nnunetv2_voco.pretrain.labelled.unlabelled_patches import UnlabelledPatches
from nnunetv2_voco.pretrain.volume_order import VolumeOrder
from tests.pretrain.volumes import filled_cache

PATCH = (12, 16, 16)
SHAPES = [(20, 40, 30), (8, 50, 50), (30, 14, 40)]
INTENSITY = ct_intensity(window_properties((-1024.0, 3071.0)))
SEED = 5


@pytest.fixture
def filled(tmp_path, rng):
    return filled_cache(tmp_path / "cache", rng, SHAPES)


def patches_of(filled, **settings) -> UnlabelledPatches:
    cache, records, _ = filled
    return UnlabelledPatches(
        cache, records, **{"intensity": INTENSITY, "patch_size": PATCH, "mirror": True, "seed": SEED, **settings}
    )


def equal(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def still(patches: UnlabelledPatches) -> UnlabelledPatches:
    """Take the random motions away, so that patches are cut from the volume as it is."""
    for step in patches.geometric.transforms:
        if isinstance(step, SpatialTransform):
            step.p_rotation = step.p_scaling = 0
    return patches


def test_patch_is_as_large_as_labelled_ones_and_comes_twice(filled):
    patches = patches_of(filled)
    for i in range(6):
        for image in patches[i]:
            assert image.shape == (1, *PATCH)
            assert image.dtype == torch.float32
            assert torch.isfinite(image).all()


def test_labeller_sees_the_voxels_of_the_volume_in_its_turn(filled):
    patches, order = still(patches_of(filled, mirror=False)), VolumeOrder(len(SHAPES), SEED)
    for i in range(6):
        volume = filled[2][order[i]].array
        inside = set((volume.astype(int) + 1024).ravel().tolist())
        seen = patches[i].image * 4095
        assert torch.allclose(seen, seen.round(), atol=1e-2)
        seen = set(seen.round().int().flatten().tolist())
        assert len(seen & inside) > 100
        assert seen - inside <= {0}  # what pads it


def test_network_sees_the_same_voxels_with_other_intensities(filled):
    patches = patches_of(filled)
    pairs = [patches[i] for i in range(30)]
    likeness = [np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in pairs]
    assert np.median(likeness) > 0.9
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert any(torch.equal(a, b) for a, b in pairs)  # nnU-Net leaves some as they are


def test_every_transform_of_nnunet_that_concerns_images_is_in_one_of_both_parts(filled):
    patches = patches_of(filled)
    chosen = choose_augmentation(PATCH, mirror=True)
    every = training_transforms(PATCH, None, chosen, use_mask_for_norm=False).transforms
    taken = [*patches.geometric.transforms, *patches.intensities.transforms]
    left_out = {type(step) for step in every} - {type(step) for step in taken}
    assert left_out == {RemoveLabelTansform}
    assert len(taken) == len(every) - 1


def test_patches_are_mirrored_where_that_is_allowed(filled):
    kinds = [[type(t) for t in patches_of(filled, mirror=m).geometric.transforms] for m in (True, False)]
    assert MirrorTransform in kinds[0]
    assert MirrorTransform not in kinds[1]


def test_same_number_gives_the_same_patch_in_any_order(filled):
    first, second = patches_of(filled), patches_of(filled)
    forwards, backwards = [first[i] for i in range(5)], [second[i] for i in reversed(range(5))]
    assert all(equal(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))
    assert not equal(first[0], first[len(SHAPES)])
    assert not equal(first[0], patches_of(filled, seed=SEED + 1)[0])


def test_drawing_leaves_the_global_generators_alone(filled):
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    patches_of(filled)[0]
    assert (torch.rand(1), np.random.rand()) == expected


def test_flat_patches_are_turned_in_their_plane(tmp_path, rng):
    flat = filled_cache(tmp_path / "flat", rng, [(10, 60, 60)])
    patches = patches_of(flat, patch_size=(4, 32, 32))
    assert patches[0].image.shape == (1, 4, 32, 32)


def test_batches_have_a_leading_axis_and_join_to_larger_ones(filled):
    patches = patches_of(filled)
    batches = [default_collate([patches[i], patches[i + 1]]) for i in (0, 2)]
    assert batches[0].image.shape == (2, 1, *PATCH)
    joined = join_batches(batches)
    assert equal(joined, default_collate([patches[i] for i in range(4)]))
