import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.primus import Primus
from torch import Tensor, nn

from nnunetv2_voco.checkpoint import Checkpoint
from nnunetv2_voco.encoder import Architecture, build_network, plain_architecture, residual_architecture
from nnunetv2_voco.report import TensorRecord
from nnunetv2_voco.transfer import TransferError, encoder_tensors, load_encoder, unwrap

FEATURES = (8, 16, 24, 24)
SIZE_VOX = (32, 32, 32)
ANISOTROPIC = [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3]]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def architecture(family: str, **changes: Any) -> Architecture:
    plain = family == "plain"
    result = plain_architecture(FEATURES) if plain else residual_architecture(FEATURES, (1, 2, 2, 2))
    n_stages = changes.get("n_stages", len(FEATURES))
    depth = changes.pop("depth", [2] * n_stages if plain else [1, *[2] * (n_stages - 1)])
    kwargs = result.arch_kwargs
    kwargs.update(
        {
            "n_stages": n_stages,
            "features_per_stage": [*FEATURES, 24][:n_stages],
            "kernel_sizes": [[3, 3, 3]] * n_stages,
            "strides": [[1, 1, 1], *[[2, 2, 2]] * (n_stages - 1)],
            "n_conv_per_stage_decoder": [1] * (n_stages - 1),
            "n_conv_per_stage" if plain else "n_blocks_per_stage": depth,
        }
        | changes
    )
    return result


def checkpoint_of(architecture: Architecture, num_input_channels: int = 1) -> Checkpoint:
    """Random weights, also where nnU-Net starts with zeros and ones."""
    network = build_network(architecture, num_input_channels=num_input_channels)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    weights = {name: tensor for name, tensor in network.state_dict().items() if name.startswith("encoder.")}
    return Checkpoint(weights=weights, architecture=architecture, num_input_channels=num_input_channels)


def features(network: nn.Module, image: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return network.encoder(image)


def source_features(checkpoint: Checkpoint, image: Tensor, *, circular: bool = False) -> list[Tensor]:
    network = build_network(checkpoint.architecture, num_input_channels=checkpoint.num_input_channels)
    state = network.state_dict() | checkpoint.weights
    network.load_state_dict(state | {f"decoder.{name}": tensor for name, tensor in checkpoint.weights.items()})
    return features(pad_circularly(network) if circular else network, image)


def pad_circularly(network: nn.Module) -> nn.Module:
    """Take away the borders, at which a kernel's taps along an axis see different things in a constant image."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.padding_mode = "circular"
    return network


def assert_features_equal(after: list[Tensor], before: list[Tensor]) -> None:
    for new, old in zip(after, before, strict=False):
        torch.testing.assert_close(new[:, : old.shape[1]], old, rtol=1e-3, atol=1e-4)


def image(channels: int = 1) -> Tensor:
    return torch.randn(1, 1, *SIZE_VOX).expand(-1, channels, -1, -1, -1)


def everything_is_as_before(network: nn.Module, checkpoint: Checkpoint) -> None:
    x = image()
    assert_features_equal(features(network, x), source_features(checkpoint, x))


def equal_channels_give_the_same(network: nn.Module, checkpoint: Checkpoint) -> None:
    x = image(4)
    assert_features_equal(features(network, x), source_features(checkpoint, x[:, :1]))


def images_constant_along_z_give_the_same(network: nn.Module, checkpoint: Checkpoint) -> None:
    x = torch.randn(1, 1, 1, *SIZE_VOX[1:]).expand(-1, -1, SIZE_VOX[0], -1, -1)
    circular = pad_circularly(copy.deepcopy(network))
    assert_features_equal(features(circular, x), source_features(checkpoint, x, circular=True))


def first_stage_is_as_before_up_to_what_was_added(network: nn.Module, checkpoint: Checkpoint) -> None:
    x = image()
    old = source_features(checkpoint, x)[0]
    if checkpoint.architecture.is_residual:  # nnU-Net's new blocks add nothing; negative values pass one more LeakyReLU
        torch.testing.assert_close(features(network, x)[0].relu(), old.relu(), rtol=1e-3, atol=1e-4)
    else:
        with torch.no_grad():
            torch.testing.assert_close(network.encoder.stages[0][0].convs[:2](x), old, rtol=1e-3, atol=1e-4)


DEEPER = {"plain": [3, 3, 2, 2], "residual": [2, 3, 2, 2]}
CASES = {
    "same": ({}, {}, 1, everything_is_as_before),
    "4 input channels": ({}, {}, 4, equal_channels_give_the_same),
    "kernel 3 to 1": ({}, {"kernel_sizes": ANISOTROPIC}, 1, images_constant_along_z_give_the_same),
    "5 stages": ({}, {"n_stages": 5}, 1, everything_is_as_before),
    "3 stages": ({}, {"n_stages": 3}, 1, everything_is_as_before),
    "wider": ({}, {"features_per_stage": [10, 20, 30, 30]}, 1, everything_is_as_before),
    "more blocks": ({}, {"depth": DEEPER}, 1, first_stage_is_as_before_up_to_what_was_added),
    "kernel 1 to 3": ({"kernel_sizes": ANISOTROPIC}, {}, 1, everything_is_as_before),
}


def expected_tensor(source: Tensor, target: Tensor, *, is_first: bool) -> tuple[np.ndarray, int]:
    """The rules once more, tap by tap; and how many elements come from the checkpoint."""
    old, new = source.numpy(), target.numpy().copy()
    if old.ndim == 1:
        n = min(len(old), len(new))
        new[:n] = old[:n]
        return new, n
    if is_first and old.shape[1] != new.shape[1]:
        old = np.repeat(old.sum(1, keepdims=True), new.shape[1], axis=1) / new.shape[1]
    n_out, n_in = min(old.shape[0], new.shape[0]), min(old.shape[1], new.shape[1])
    new[:n_out] = 0
    for tap in itertools.product(*map(range, old.shape[2:])):
        to = tuple(
            int(np.clip(t - (k_old - k_new) // 2, 0, k_new - 1))
            for t, k_old, k_new in zip(tap, old.shape[2:], new.shape[2:], strict=True)
        )
        new[(slice(n_out), slice(n_in), *to)] += old[(slice(n_out), slice(n_in), *tap)]
    return new, n_out * n_in * int(np.prod(new.shape[2:]))


def train_one_step(network: nn.Module, channels: int) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    loss = network(torch.randn(1, channels, *SIZE_VOX)).square().mean()
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert all(parameter.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("family", ["plain", "residual"])
@pytest.mark.parametrize("case", CASES)
def test_transfer_is_as_reported_preserves_what_it_promises_and_trains(family: str, case: str) -> None:
    before, after, channels, promise = copy.deepcopy(CASES[case])
    after = {key: value[family] if key == "depth" else value for key, value in after.items()}
    checkpoint = checkpoint_of(architecture(family, **before))
    network = build_network(architecture(family, **after), num_input_channels=channels)
    initial = {name: tensor.detach().clone() for name, tensor in encoder_tensors(network).items()}
    decoder = copy.deepcopy(
        {n: t for n, t in network.state_dict().items() if not n.startswith(("encoder.", "decoder.enc"))}
    )

    report = load_encoder(network, checkpoint)

    loaded = 0
    records: dict[str, TensorRecord] = {record.name: record for record in report.encoder}
    assert records.keys() == initial.keys()
    for name, tensor in encoder_tensors(network).items():
        record = records[name]
        if name not in checkpoint.weights:
            assert record.state == "random"
            assert torch.equal(tensor, initial[name])
            continue
        is_first = name.endswith(("stages.0.0.convs.0.conv.weight", "stem.convs.0.conv.weight"))
        expected, count = expected_tensor(checkpoint.weights[name], initial[name], is_first=is_first)
        np.testing.assert_allclose(tensor.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
        equal_shapes = checkpoint.weights[name].shape == tensor.shape
        assert record.state == ("copied" if equal_shapes else "partial" if count < tensor.numel() else "adapted")
        assert record.loaded == count
        loaded += count
    assert report.share == loaded / sum(tensor.numel() for tensor in initial.values())
    unused = {n for n in checkpoint.weights if n not in initial and ".all_modules." not in n}
    assert set(report.unused) == unused
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in decoder.items())
    promise(network, checkpoint)
    train_one_step(network, channels)


@pytest.mark.parametrize("family", ["plain", "residual"])
@pytest.mark.parametrize("n_stages", [4, 5, 6, 7])
@pytest.mark.parametrize("kernels", ["isotropic", "anisotropic"])
@pytest.mark.parametrize("channels", [1, 4])
def test_plans_of_all_depths_get_the_stages_they_share(family: str, n_stages: int, kernels: str, channels: int) -> None:
    size = {"n_stages": 5, "features_per_stage": [4, 8, 8, 8, 8]}
    checkpoint = checkpoint_of(architecture(family, **size))
    network = build_network(
        architecture(
            family,
            n_stages=n_stages,
            features_per_stage=[4, *[8] * (n_stages - 1)],
            kernel_sizes=[[1 if kernels == "anisotropic" and s < 2 else 3, 3, 3] for s in range(n_stages)],
        ),
        num_input_channels=channels,
    )
    report = load_encoder(network, checkpoint)
    for stage, records in report.stages().items():
        states = {record.state for record in records}
        if stage in ("stage 5", "stage 6"):
            assert states == {"random"}
        else:
            assert states <= {"copied", "adapted"}
    assert bool(report.unused) == (n_stages < 5)


@pytest.mark.parametrize("family", ["plain", "residual"])
def test_narrower_network_gets_leading_channels(family: str) -> None:
    checkpoint = checkpoint_of(architecture(family))
    network = build_network(architecture(family, features_per_stage=[4, 8, 12, 12]), num_input_channels=1)
    report = load_encoder(network, checkpoint)
    assert report.share == 1
    name = next(name for name in encoder_tensors(network) if name.endswith("conv.weight"))
    assert torch.equal(encoder_tensors(network)[name], checkpoint.weights[name][:4])


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
