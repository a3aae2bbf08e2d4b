import copy
from pathlib import Path

import pytest
import torch
from dynamic_network_architectures.architectures.primus import Primus
from torch import nn

from nnunetv2_voco.checkpoint import Checkpoint
from nnunetv2_voco.encoder import build_network, plain_architecture
from nnunetv2_voco.transfer import TransferError, encoder_tensors, load_encoder, unwrap
from tests.nnunetv2_voco.networks import (
    SIZE_VOX,
    architecture,
    assert_features_equal,
    checkpoint_of,
    features,
    image,
    source_features,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_weights_of_a_diverged_run_are_refused() -> None:
    checkpoint = checkpoint_of(architecture("plain"))
    checkpoint.weights["encoder.stages.1.0.convs.0.norm.bias"][0] = float("nan")
    with pytest.raises(TransferError, match=r"not finite, first in encoder.stages.1.0.convs.0.norm.bias"):
        load_encoder(build_network(architecture("plain"), num_input_channels=1), checkpoint)


def test_every_parameter_is_counted_once() -> None:
    network = build_network(architecture("plain"), num_input_channels=1)
    report = load_encoder(network, checkpoint_of(architecture("plain")))
    assert sum(record.size for record in report.encoder) == sum(p.numel() for p in network.encoder.parameters())


def test_names_of_the_second_registration_are_as_good() -> None:
    checkpoint = checkpoint_of(architecture("plain"))
    only_second = {n: t for n, t in checkpoint.weights.items() if ".all_modules." in n}
    network = build_network(architecture("plain"), num_input_channels=1)
    report = load_encoder(network, Checkpoint(weights=only_second, architecture=checkpoint.architecture))
    assert report.share == 1


def test_too_little_is_an_error_that_changes_nothing_unless_insisted() -> None:
    checkpoint = checkpoint_of(plain_architecture((2, 4, 6, 6)))
    network = build_network(architecture("plain"), num_input_channels=1)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(TransferError, match=r"only 6\.\d% of the encoder's parameters .* at least 50% are expected"):
        load_encoder(network, checkpoint)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert load_encoder(network, checkpoint, minimum_share=0).share < 0.1


@pytest.mark.parametrize(("have", "want"), [("plain", "residual"), ("residual", "plain")])
def test_other_family_is_refused_unless_asked_for(have: str, want: str) -> None:
    checkpoint = checkpoint_of(architecture(have, depth=[2, 2, 2, 2] if have == "plain" else [1, 1, 1, 1]))
    network = build_network(
        architecture(want, depth=[2, 2, 2, 2] if want == "plain" else [1, 1, 1, 1]), num_input_channels=1
    )
    with pytest.raises(TransferError, match=f"has a {have} encoder, the plan a {want} one"):
        load_encoder(network, checkpoint)
    report = load_encoder(network, checkpoint, across_families=True)
    weights = encoder_tensors(network)
    first, second = (
        ("encoder.stem.convs.0", "encoder.stages.0.blocks.0.conv1")
        if want == "residual"
        else ("encoder.stages.0.0.convs.0", "encoder.stages.0.0.convs.1")
    )
    their_first, their_second = (
        ("encoder.stem.convs.0", "encoder.stages.0.blocks.0.conv1")
        if have == "residual"
        else ("encoder.stages.0.0.convs.0", "encoder.stages.0.0.convs.1")
    )
    assert torch.equal(weights[f"{first}.conv.weight"], checkpoint.weights[f"{their_first}.conv.weight"])
    assert torch.equal(weights[f"{second}.norm.bias"], checkpoint.weights[f"{their_second}.norm.bias"])
    assert 0.5 < report.share < 1 if want == "residual" else report.share == 1


def test_2d_network_is_refused() -> None:
    flat = architecture("plain", conv_op="torch.nn.modules.conv.Conv2d", norm_op="torch.nn.InstanceNorm2d")
    flat.arch_kwargs.update(kernel_sizes=[[3, 3]] * 4, strides=[[1, 1], *[[2, 2]] * 3])
    with pytest.raises(TransferError, match="2D network, the weights are 3D"):
        load_encoder(build_network(flat, num_input_channels=1), checkpoint_of(architecture("plain")))


def test_network_without_the_contract_is_refused_by_name() -> None:
    with pytest.raises(TransferError, match="Sequential does not say where its encoder is"):
        load_encoder(nn.Sequential(nn.Conv3d(1, 1, 1)), checkpoint_of(architecture("plain")))


def test_network_of_another_kind_takes_what_is_equal() -> None:
    def primus() -> nn.Module:
        return Primus(1, 12, (8, 8, 8), 2, 1, 2, (16, 16, 16))

    source, network = primus(), primus()
    report = load_encoder(network, Checkpoint(weights=source.state_dict(), architecture=None))  # type: ignore[arg-type]
    assert report.share == 1
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in encoder_tensors(network).items())


def test_cascade_starts_without_looking_at_the_labels() -> None:
    checkpoint = checkpoint_of(architecture("plain"))
    network = build_network(architecture("plain"), num_input_channels=3)
    load_encoder(network, checkpoint, num_label_channels=2)
    x = image()
    labels = torch.rand(1, 2, *SIZE_VOX)
    assert_features_equal(features(network, torch.cat((x, labels), dim=1)), source_features(checkpoint, x))


def test_full_network_of_equal_shape_can_be_taken_over_but_for_its_segmentation_layers() -> None:
    source = build_network(architecture("plain"), num_input_channels=1, num_output_channels=5)
    network = build_network(architecture("plain"), num_input_channels=1, num_output_channels=3)
    full = Checkpoint(weights=source.state_dict(), architecture=architecture("plain"))
    untouched = copy.deepcopy(network.decoder.seg_layers.state_dict())
    assert not load_encoder(network, full).decoder
    report = load_encoder(network, full, decoder=True)
    assert {record.state for record in report.decoder} == {"copied"}
    assert torch.equal(network.decoder.transpconvs[0].weight, source.decoder.transpconvs[0].weight)
    assert all(torch.equal(t, untouched[name]) for name, t in network.decoder.seg_layers.state_dict().items())


def test_outputs_for_classes_of_the_same_name_come_along_with_the_decoder() -> None:
    source = build_network(architecture("plain"), num_input_channels=1, num_output_channels=3)
    network = build_network(architecture("plain"), num_input_channels=1, num_output_channels=4)
    full = Checkpoint(
        weights=source.state_dict(), architecture=architecture("plain"), pretraining={"classes": ["organ", "Tumour"]}
    )
    classes = ("background", "tumour", "vessel", "organ")
    before = copy.deepcopy(network.decoder.seg_layers)
    load_encoder(network, full, classes=classes)
    load_encoder(network, full, decoder=True, classes=("background", "one", "two", "three"))
    assert all(
        torch.equal(*pair)
        for pair in zip(network.decoder.seg_layers[-1].parameters(), before[-1].parameters(), strict=True)
    )
    report = load_encoder(network, full, decoder=True, classes=classes)
    for ours, theirs, old in zip(network.decoder.seg_layers, source.decoder.seg_layers, before, strict=True):
        for name in ("weight", "bias"):
            new = getattr(ours, name)
            assert torch.equal(new[[0, 3, 1]], getattr(theirs, name))
            assert torch.equal(new[2], getattr(old, name)[2])
    partial = [record for record in report.decoder if record.state == "partial"]
    assert {record.name for record in partial} == {
        f"decoder.seg_layers.{i}.{name}" for i in range(len(before)) for name in ("weight", "bias")
    }
    assert all(record.rules == ("3 of 4 classes by name",) for record in partial)
    assert sum(record.loaded for record in partial) == 3 * sum(p.numel() for p in before.parameters()) // 4


def test_whole_network_for_the_same_classes_predicts_as_before() -> None:
    source = build_network(architecture("plain"), num_input_channels=1, num_output_channels=3)
    network = build_network(architecture("plain"), num_input_channels=1, num_output_channels=3)
    full = Checkpoint(
        weights=source.state_dict(), architecture=architecture("plain"), pretraining={"classes": ["organ", "tumour"]}
    )
    report = load_encoder(network, full, decoder=True, classes=full.classes)
    assert {record.state for record in (*report.encoder, *report.decoder)} == {"copied"}
    x = image()
    assert_features_equal([network(x)], [source(x)])


def test_decoder_of_another_depth_is_left_random() -> None:
    source = build_network(architecture("plain"), num_input_channels=1)
    network = build_network(architecture("plain", n_stages=5), num_input_channels=1)
    full = Checkpoint(weights=source.state_dict(), architecture=architecture("plain"))
    assert {record.state for record in load_encoder(network, full, decoder=True).decoder} == {"random"}


def test_other_strides_are_noted() -> None:
    network = build_network(
        architecture("plain", strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]), num_input_channels=1
    )
    report = load_encoder(network, checkpoint_of(architecture("plain")))
    assert report.notes == ("stage 1: stride (2, 2, 2) in pre-training, (1, 2, 2) in the plan",)


def test_wrapped_network_is_filled_in_place_so_that_the_optimiser_sees_it() -> None:
    network = build_network(architecture("plain"), num_input_channels=1)
    optimizer = torch.optim.SGD(network.parameters(), lr=1)
    compiled = torch.compile(network)
    checkpoint = checkpoint_of(architecture("plain"))
    load_encoder(compiled, checkpoint)
    assert unwrap(compiled) is network
    assert torch.equal(
        optimizer.param_groups[0]["params"][0], checkpoint.weights["encoder.stages.0.0.convs.0.conv.weight"]
    )


def test_ddp_is_unwrapped(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        network = build_network(architecture("plain"), num_input_channels=1)
        wrapped = nn.parallel.DistributedDataParallel(torch.compile(network))
        assert unwrap(wrapped) is network
        assert load_encoder(wrapped, checkpoint_of(architecture("plain"))).share == 1
    finally:
        torch.distributed.destroy_process_group()


def test_report_says_per_stage_what_happened() -> None:
    checkpoint = checkpoint_of(architecture("plain"))
    network = build_network(
        architecture("plain", n_stages=5, kernel_sizes=[[1, 3, 3], *[[3, 3, 3]] * 4]), num_input_channels=4
    )
    text = str(load_encoder(network, checkpoint))
    assert "stage 0" in text
    assert "6 copied, 2 adapted (kernel 3×3×3 → 1×3×3; input channels 1 → 4)" in text
    assert "8 random (not in the checkpoint)" in text
