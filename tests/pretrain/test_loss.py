import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nnunetv2_voco.pretrain.crops import base_corners, overlap_fractions
from nnunetv2_voco.pretrain.loss import EPSILON, best_constant_loss, voco_loss
from tests.conftest import SHARED


def random_batch(rng, n=3, t=2, b=9, e=7):
    def draw(*shape):
        return torch.from_numpy(rng.normal(size=shape) + 0.5)

    corners = base_corners((1, 3, 3), (16, 16, 16))
    overlaps = np.stack(
        [overlap_fractions(rng.integers(0, [1, 33, 33], size=(t, 3)), corners, np.array([16] * 3)) for _ in range(n)]
    )
    return [draw(n, t, e), draw(n, t, e), draw(n, b, e), draw(n, b, e), torch.from_numpy(overlaps)]


def loop_entropy(overlaps, similarities):
    """The formula of `overlap_entropy` for one volume, one pair at a time."""
    positive = weight = negative = absent = 0.0
    for y, s in zip(overlaps.flatten(), similarities.flatten(), strict=True):
        positive = positive - y * torch.log(1 - (y - s).abs() + EPSILON)
        weight = weight + y
        if y == 0:
            negative = negative - torch.log(1 - s + EPSILON)
            absent += 1
    return positive / (weight + EPSILON) + negative / (absent + EPSILON)


def loop_similarity(a, b):
    return torch.stack([torch.stack([F.cosine_similarity(i, j, dim=0).relu() for j in b]) for i in a])


def loop_loss(crops_student, crops_teacher, bases_student, bases_teacher, overlaps):
    n = len(overlaps)
    intra = inter = reg = 0.0
    for i in range(n):
        j = (i + 1) % n
        intra = intra + loop_entropy(overlaps[i], loop_similarity(crops_student[i], bases_teacher[i])) / n
        target = loop_similarity(crops_teacher[i], bases_teacher[j])
        inter = inter + loop_entropy(target, loop_similarity(crops_student[i], bases_student[j])) / n
        square = loop_similarity(bases_student[i], bases_student[i].detach()) ** 2
        pairs = [square[p, q] for p in range(len(square)) for q in range(p + 1, len(square))]
        reg = reg + torch.stack(pairs).mean() / n
    return intra, inter, reg


@pytest.mark.parametrize("case", [0, 1, 2])
def test_values_and_gradients_equal_the_authors_code(case):
    path = SHARED / "reference" / "voco_loss_cases.npz"
    if not path.is_file():
        pytest.skip(f"reference numbers are not here ({path})")
    with np.load(path) as data:
        reference = {key.removeprefix(f"case{case}_"): data[key] for key in data if key.startswith(f"case{case}_")}
    names = ("crops_student", "crops_teacher", "bases_student", "bases_teacher", "overlaps")
    inputs = [torch.from_numpy(reference[name]).double() for name in names]
    for tensor in inputs[:4]:
        tensor.requires_grad_()
    loss = voco_loss(*inputs)
    loss.total.backward()
    for term in ("intra", "inter", "reg", "total"):
        assert getattr(loss, term).item() == pytest.approx(float(reference[term]), abs=1e-9)
    np.testing.assert_allclose(inputs[0].grad, reference["grad_crops_student"], atol=1e-9)
    np.testing.assert_allclose(inputs[2].grad, reference["grad_bases_student"], atol=1e-9)
    assert inputs[1].grad is None
    assert inputs[3].grad is None


def test_overlaps_of_the_reference_are_those_of_its_crop_centres():
    path = SHARED / "reference" / "voco_loss_cases.npz"
    if not path.is_file():
        pytest.skip(f"reference numbers are not here ({path})")
    with np.load(path) as data:
        for case in range(3):
            side = int(np.sqrt(data[f"case{case}_overlaps"].shape[2]))
            bases = base_corners((1, side, side), (64, 64, 64))
            for centres, overlaps in zip(data[f"case{case}_centres"], data[f"case{case}_overlaps"], strict=True):
                crops = np.concatenate([np.zeros((len(centres), 1)), centres - 32], axis=1)
                np.testing.assert_allclose(overlap_fractions(crops, bases, np.array([64] * 3)), overlaps, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 2, 3), (2, 2, 9, 7), (5, 4, 16, 3)])
def test_loss_equals_one_pair_at_a_time(rng, shape):
    n, t, b, e = shape
    inputs = random_batch(rng, n=n, t=t, e=e)
    inputs[2], inputs[3], inputs[4] = inputs[2][:, :b], inputs[3][:, :b], inputs[4][..., :b]
    if n == 1:
        assert voco_loss(*inputs).inter == 0
        return
    loss = voco_loss(*inputs)
    for got, expected in zip(loss[:3], loop_loss(*inputs), strict=True):
        torch.testing.assert_close(got, expected)


def test_invalid_bases_count_as_if_they_were_not_there(rng):
    inputs = random_batch(rng, b=9)
    valid = torch.ones(3, 9, dtype=torch.bool)
    valid[:, [2, 5]] = False
    keep = [0, 1, 3, 4, 6, 7, 8]
    without = [*inputs[:2], inputs[2][:, keep], inputs[3][:, keep], inputs[4][..., keep]]
    for got, expected in zip(voco_loss(*inputs, bases_valid=valid), voco_loss(*without), strict=True):
        torch.testing.assert_close(got, expected)


def test_volume_without_any_valid_base_adds_nothing(rng):
    inputs = random_batch(rng)
    loss = voco_loss(*inputs, bases_valid=torch.zeros(3, 9, dtype=torch.bool))
    assert float(loss.total) == 0


def test_equal_crops_give_a_finite_loss_and_gradient():
    crops = torch.full((2, 2, 8), 0.1, requires_grad=True)
    bases = torch.full((2, 9, 8), 0.1, requires_grad=True)
    overlaps = torch.zeros(2, 2, 9)
    overlaps[..., 4] = 1
    loss = voco_loss(crops, crops, bases, bases, overlaps)
    loss.total.backward()
    assert loss.total.isfinite()
    assert crops.grad.isfinite().all()


def test_half_precision_inputs_are_computed_in_float32(rng):
    inputs = [x.float() for x in random_batch(rng)]
    exact = voco_loss(*[x.half().float() for x in inputs[:4]], inputs[4])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = voco_loss(*[x.half() for x in inputs[:4]], inputs[4])
    assert got.total.dtype == torch.float32
    torch.testing.assert_close(got.total, exact.total)


def test_chance_levels_of_the_papers_grid_are_the_published_ones(rng):
    bases = base_corners((1, 3, 3), (64, 64, 64))
    corners = rng.uniform(0, [1e-9, 128, 128], size=(20000, 3))
    overlaps = torch.from_numpy(overlap_fractions(corners, bases, np.array([64] * 3))).reshape(10000, 2, 9)
    zero, constant = best_constant_loss(overlaps, torch.ones(10000, 9, dtype=torch.bool))
    assert zero == pytest.approx(0.711, abs=0.01)
    assert constant == pytest.approx(0.583, abs=0.01)
