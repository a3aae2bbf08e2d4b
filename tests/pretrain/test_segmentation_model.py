import torch
from torch import Tensor

from nnunetv2_voco.encoder import build_network
from nnunetv2_voco.pretrain.feed import deep_supervision_scales
from nnunetv2_voco.pretrain.labelled.model import FrozenLabeller, SegmentationModel, coarser
from nnunetv2_voco.pretrain.labelled.patches import LabelledPatch
from nnunetv2_voco.pretrain.labelled.validation import count_voxels
from nnunetv2_voco.pretrain.precision import autocast_context
from tests.pretrain.tiny_run import ARCHITECTURE, LOSS, make_model, random_batch

CPU = torch.device("cpu")
SIZE = (16, 8, 8)
WEIGHTS = {"labelled_weight": 1.0, "pseudo_weight": 1.0}


def segmentation_model(*, contrast: bool, processes: int = 1) -> SegmentationModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        voco = make_model() if contrast else None
        return SegmentationModel(
            ARCHITECTURE, num_classes=3, annotated=[[True] * 3, [True, False, True]], voco=voco, processes=processes
        )


def patches(number: int = 3) -> LabelledPatch:
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(number, 1, *SIZE, generator=generator)
    classes = torch.randint(3, (number, 1, *SIZE), generator=generator, dtype=torch.int16)
    sets = torch.arange(number) % 2
    classes[sets == 1] = torch.where(classes[sets == 1] == 1, 0, classes[sets == 1])
    targets = coarser(classes, [(16, 8, 8), (8, 4, 4)])
    return LabelledPatch(images, tuple(targets), sets)


def gradients(model: SegmentationModel, *arguments, **keywords) -> dict[str, Tensor]:
    model.zero_grad()
    loss = model(*arguments, voco_arguments=LOSS, **WEIGHTS, **keywords)
    loss.total.backward()
    named = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"total": loss.total.detach(), **named}


def test_it_is_the_network_that_nnunet_builds():
    model = segmentation_model(contrast=False)
    network = build_network(ARCHITECTURE, num_input_channels=1, num_output_channels=3, deep_supervision=True)
    assert model.network_weights().keys() == {n for n in network.state_dict() if not n.startswith("decoder.encoder.")}
    network.load_state_dict(model.network_weights(), strict=False)
    images = patches().image
    for ours, theirs in zip(model.segment(images), network(images), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_contrast_and_segmentation_train_one_encoder():
    model = segmentation_model(contrast=True)
    assert model.encoder is model.voco.encoder is model.decoder.encoder
    loss = model(random_batch_as_sample(), patches(), None, voco_arguments=LOSS, **WEIGHTS, detached=True)
    alone = model.voco(*random_batch(), **LOSS)
    torch.testing.assert_close(loss.intra, alone.intra)
    torch.testing.assert_close(loss.total, alone.total + loss.labelled)


def random_batch_as_sample():
    from nnunetv2_voco.pretrain.dataset import Sample

    return Sample(*random_batch())


def test_pseudo_labels_train_the_decoder_alone_where_the_recipe_says_so():
    model = segmentation_model(contrast=False)
    images = torch.randn(2, 1, 8, 8, 8)
    pseudo = images, torch.randint(3, images.shape)
    detached = gradients(model, None, None, pseudo, detached=True)
    assert not any(name.startswith("encoder") for name in detached)
    assert any(name.startswith("decoder") for name in detached)
    assert any(name.startswith("encoder") for name in gradients(model, None, None, pseudo, detached=False))


def test_every_parameter_has_a_gradient_with_several_processes():
    model = segmentation_model(contrast=True, processes=2)
    got = gradients(model, random_batch_as_sample(), patches(), None, detached=True)
    assert got.keys() == {"total", *(name for name, p in model.named_parameters() if p.requires_grad)}


def test_gradients_do_not_depend_on_the_chunk():
    model = segmentation_model(contrast=False)
    images = torch.randn(3, 1, 8, 8, 8)
    pseudo = images, torch.randint(3, images.shape)
    whole = gradients(model, None, patches(), pseudo, detached=False)
    for chunk in (1, 2):
        chunked = gradients(model, None, patches(), pseudo, detached=False, chunk=chunk)
        for name, gradient in whole.items():
            torch.testing.assert_close(chunked[name], gradient, rtol=1e-4, atol=1e-5)


def test_outputs_have_the_sizes_of_the_targets():
    model = segmentation_model(contrast=False)
    sizes = model.segment_sizes(torch.zeros(1, 1, *SIZE))
    assert sizes == [tuple(output.shape[2:]) for output in model.segment(torch.zeros(1, 1, *SIZE))]
    scales = deep_supervision_scales(ARCHITECTURE.strides)
    assert sizes == [tuple(int(n * s) for n, s in zip(SIZE, scale, strict=True)) for scale in scales]


def test_labeller_stays_as_it_was_and_labels_as_the_network_did():
    model = segmentation_model(contrast=True)
    images = patches().image
    before = model.segment(images)[0].argmax(1, keepdim=True)
    labeller = FrozenLabeller(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    gradients(model, random_batch_as_sample(), patches(), None, detached=True)
    optimizer.step()
    assert not torch.equal(model.segment(images)[0].argmax(1, keepdim=True), before)
    for chunk in (None, 2):
        assert torch.equal(labeller(images, lambda: autocast_context("fp32", CPU), chunk), before)
    assert not any(p.requires_grad for p in labeller.parameters())


def test_voxels_are_counted_for_annotated_classes_alone():
    predicted = torch.tensor([0, 1, 1, 2, 2, 2]).reshape(1, 1, 2, 3)
    target = torch.tensor([0, 0, 2, 2, 0, -1]).reshape(1, 1, 2, 3)
    counts = count_voxels(predicted, target, torch.tensor([True, False, True]))
    # class 1 is not annotated: where it is predicted, the set's background is right and its class 2 is missed
    assert counts[:, 2].tolist() == [1, 1, 1]
    assert counts[:, 1].tolist() == [0, 0, 0]
