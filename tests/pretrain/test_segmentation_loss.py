import numpy as np
import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor

from nnunetv2_voco.pretrain.labelled.loss import SegmentationLoss, merge_unannotated, merged_target
from nnunetv2_voco.pretrain.labelled.sets import IGNORE_LABEL

ALL = [True, True, True, True]
FIRST = [True, True, False, False]  # annotates class 1 alone
SIZES = [(4, 6, 6), (2, 3, 3)]


def random_outputs(patches: int, classes: int = 4, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(patches, classes, *size, generator=generator, requires_grad=True) for size in SIZES]


def random_targets(patches: int, classes: int = 4, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(classes, (patches, 1, *size), generator=generator).short() for size in SIZES]


def nnunet_loss(**arguments) -> DeepSupervisionWrapper:
    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss, **arguments)
    return DeepSupervisionWrapper(loss, [1.0, 0.0])


def test_where_every_class_is_annotated_it_is_the_loss_of_nnunet():
    outputs, targets = random_outputs(3), random_targets(3)
    got = SegmentationLoss([ALL], scales=2)(outputs, targets, torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(got, nnunet_loss()(outputs, [target.long() for target in targets]))


def test_voxels_to_ignore_have_no_gradient_as_in_nnunet():
    outputs, targets = random_outputs(2), random_targets(2)
    targets[0][:, :, :2] = IGNORE_LABEL
    got = SegmentationLoss([ALL], scales=2)(outputs, targets, torch.zeros(2, dtype=torch.long))
    theirs = [torch.where(target == IGNORE_LABEL, 9, target.long()) for target in targets]
    torch.testing.assert_close(got, nnunet_loss(ignore_label=9)(outputs, theirs))
    (gradient,) = torch.autograd.grad(got, outputs[0])
    assert not gradient[:, :, :2].any()
    assert gradient[:, :, 2:].any()


def test_merged_background_has_the_probability_of_all_that_is_merged():
    logits = torch.randn(2, 4, 3, 3, 3, dtype=torch.float64)
    merged = merge_unannotated(logits, [True, False, True, False]).softmax(1)
    apart = logits.softmax(1)
    torch.testing.assert_close(merged[:, 0], apart[:, 0] + apart[:, 1] + apart[:, 3])
    torch.testing.assert_close(merged[:, 1], apart[:, 2])


def test_targets_are_numbered_as_the_logits_are_ordered():
    target = torch.tensor([0, 2, 3, IGNORE_LABEL], dtype=torch.int16)
    assert merged_target(target, [True, False, True, True]).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("chosen", [2, 3])
def test_a_class_that_a_set_leaves_out_may_be_called_background_or_not_at_no_cost(chosen):
    """Where only class 1 is annotated, the logits of background and of another class may be exchanged."""
    outputs, targets = random_outputs(2), [target.clamp(max=1) for target in random_targets(2)]
    loss, sets = SegmentationLoss([FIRST], scales=2), torch.zeros(2, dtype=torch.long)
    order = list(range(4))
    order[0], order[chosen] = chosen, 0
    exchanged = [output[:, order] for output in outputs]
    torch.testing.assert_close(loss(outputs, targets, sets), loss(exchanged, targets, sets))
    as_background = SegmentationLoss([ALL], scales=2)
    assert not torch.isclose(as_background(outputs, targets, sets), as_background(exchanged, targets, sets))


def test_training_on_a_set_leaves_how_its_background_is_parted_to_the_other_sets():
    """Descend on patches of a set without class 2 whose voxels look like class 2: it is not unlearned."""
    logits = torch.zeros(1, 3, 2, 2, 2)
    logits[:, 2] = 4.0  # the network is sure of class 2
    logits.requires_grad_(True)
    target = [torch.zeros(1, 1, 2, 2, 2, dtype=torch.int16)]
    partial = SegmentationLoss([[True, True, False]], scales=1)([logits], target, torch.zeros(1, dtype=torch.long))
    (gradient,) = torch.autograd.grad(partial, logits)
    assert (gradient[:, 2] <= 0).all()  # descent keeps or raises class 2
    full = SegmentationLoss([[True, True, True]], scales=1)([logits], target, torch.zeros(1, dtype=torch.long))
    (gradient,) = torch.autograd.grad(full, logits)
    assert (gradient[:, 2] > 0).all()  # as background it would be pushed down


def test_mixed_batch_has_the_mean_of_its_patches():
    outputs, targets = random_outputs(3), random_targets(3)
    targets = [torch.where(torch.arange(3)[:, None, None, None, None] == 1, t.clamp(max=1), t) for t in targets]
    loss = SegmentationLoss([ALL, FIRST], scales=2)
    sets = torch.tensor([0, 1, 0])
    alone = [loss([o[i : i + 1] for o in outputs], [t[i : i + 1] for t in targets], sets[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(loss(outputs, targets, sets), torch.stack(alone).mean())


def test_with_several_processes_every_output_has_a_gradient():
    for processes, expected in ((1, False), (2, True)):
        outputs = random_outputs(1)
        loss = SegmentationLoss([ALL], scales=2, processes=processes)
        loss(outputs, random_targets(1), torch.zeros(1, dtype=torch.long)).backward()
        assert (outputs[1].grad is not None) == expected


def test_loss_is_computed_in_float32_and_finite_for_extreme_logits():
    outputs = [torch.full((1, 4, 2, 2, 2), 3e4, dtype=torch.float16)]
    outputs[0][:, 1] = -3e4
    target = [torch.ones(1, 1, 2, 2, 2, dtype=torch.int16)]
    value = SegmentationLoss([FIRST], scales=1)(outputs, target, torch.zeros(1, dtype=torch.long))
    assert value.dtype == torch.float32
    assert np.isfinite(float(value))
