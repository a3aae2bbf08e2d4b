import numpy as np
import pytest
import torch

from nnunetv2_voco.pretrain.augment import crop_transforms

DRAWS = 3000
IMAGE = torch.arange(27, dtype=torch.float32).reshape(1, 3, 3, 3)


@pytest.fixture(autouse=True)
def _seeded():
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        np.random.seed(11)
        yield
    np.random.set_state(state)


def share(transform, image: torch.Tensor, happened) -> float:
    return sum(happened(transform(image=image)["image"]) for _ in range(DRAWS)) / DRAWS


def close_to(p: float):
    return pytest.approx(p, abs=4 * (p * (1 - p) / DRAWS) ** 0.5)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_each_axis_is_flipped_with_the_given_probability(axis):
    transform = crop_transforms(shift_amplitude=0, isotropic_plane=False, p_flip=0.2)
    assert share(transform, IMAGE, lambda out: bool((out.diff(dim=axis) < 0).all())) == close_to(0.2)


def test_quarter_turns_are_axial_and_as_frequent_as_given():
    transform = crop_transforms(shift_amplitude=0, isotropic_plane=True, p_flip=0, p_rotate=0.2)
    turned = {tuple(torch.rot90(IMAGE, k, (2, 3)).flatten().tolist()): k for k in range(4)}
    counts = np.zeros(4)
    for _ in range(DRAWS):
        counts[turned[tuple(transform(image=IMAGE)["image"].flatten().tolist())]] += 1
    assert counts[0] / DRAWS == close_to(0.8)
    for k in (1, 2, 3):
        assert counts[k] / DRAWS == close_to(0.2 / 3)


def test_shift_is_uniform_within_the_amplitude_and_as_frequent_as_given():
    transform = crop_transforms(shift_amplitude=0.3, isotropic_plane=False, p_flip=0, p_shift=0.5)
    offsets = []
    for _ in range(DRAWS):
        out = transform(image=torch.zeros(1, 2, 2, 2))["image"]
        assert (out == out.flatten()[0]).all()
        offsets.append(float(out[0, 0, 0, 0]))
    drawn = np.array([offset for offset in offsets if offset != 0])
    assert len(drawn) / DRAWS == close_to(0.5)
    assert np.abs(drawn).max() <= 0.3
    assert np.abs(drawn).max() > 0.29
    assert drawn.mean() == pytest.approx(0, abs=0.02)
    assert np.abs(drawn).mean() == pytest.approx(0.15, abs=0.01)


def test_values_are_only_moved_and_shifted_together():
    transform = crop_transforms(shift_amplitude=0.3, isotropic_plane=True, p_flip=0.5, p_rotate=0.5)
    for _ in range(100):
        out = transform(image=IMAGE)["image"]
        assert out.shape == IMAGE.shape
        shift = out.flatten().sort().values - IMAGE.flatten()
        torch.testing.assert_close(shift, shift[:1].expand(27), atol=1e-5, rtol=0)


def test_planes_that_are_not_isotropic_are_never_turned():
    transform = crop_transforms(shift_amplitude=0, isotropic_plane=False, p_flip=0)
    assert share(transform, IMAGE, lambda out: bool((out != IMAGE).any())) == 0


def test_the_image_handed_in_is_left_alone():
    transform = crop_transforms(shift_amplitude=1, isotropic_plane=True, p_flip=0.5, p_rotate=0.5, p_shift=1)
    image = IMAGE.clone()
    for _ in range(50):
        transform(image=image)
    assert torch.equal(image, IMAGE)


def test_same_seed_augments_alike():
    transform = crop_transforms(shift_amplitude=1, isotropic_plane=True, p_flip=0.5, p_rotate=0.5)
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        np.random.seed(5)
        results.append(torch.stack([transform(image=IMAGE)["image"] for _ in range(20)]))
    assert torch.equal(*results)
