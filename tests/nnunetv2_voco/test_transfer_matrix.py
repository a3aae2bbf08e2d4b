"""The transfers that plans ask for: the report against the tensors, what is preserved, and that training runs."""

import copy
import itertools
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nnunetv2_voco.checkpoint import Checkpoint
from nnunetv2_voco.encoder import build_network
from nnunetv2_voco.report import TransferReport
from nnunetv2_voco.transfer import encoder_tensors, load_encoder
from tests.nnunetv2_voco.networks import (
    ANISOTROPIC,
    SIZE_VOX,
    architecture,
    assert_features_equal,
    checkpoint_of,
    features,
    image,
    pad_circularly,
    source_features,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


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
"""Changes to the pre-trained network, to the planned one, its input channels, and what is promised. The first eight are
those which nnU-Net's own coming route was measured by."""


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


def assert_report_tells_the_tensors(
    report: TransferReport, network: nn.Module, checkpoint: Checkpoint, initial: dict[str, Tensor]
) -> None:
    """Compare every tensor of the encoder, and the report, with the rules applied by hand to `initial`."""
    loaded = 0
    records = {record.name: record for record in report.encoder}
    assert records.keys() == initial.keys()
    for name, tensor in encoder_tensors(network).items():
        record = records[name]
        assert record.size == tensor.numel()
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


def train_one_step(network: nn.Module, channels: int, transferred: Iterable[str]) -> None:
    """Train, and see that every convolution that was transferred learns."""
    before = {name: tensor.detach().clone() for name, tensor in network.named_parameters()}
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
    loss = network(torch.randn(1, channels, *SIZE_VOX)).square().mean()
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert all(parameter.isfinite().all() for parameter in network.parameters())
    convolutions = [name for name in transferred if name.endswith("conv.weight") and name in before]
    assert convolutions
    assert not any(torch.equal(network.get_parameter(name), before[name]) for name in convolutions)


def initial_tensors(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in encoder_tensors(network).items()}


@pytest.mark.parametrize("family", ["plain", "residual"])
@pytest.mark.parametrize("case", CASES)
def test_transfer_is_as_reported_preserves_what_it_promises_and_trains(family: str, case: str) -> None:
    before, after, channels, promise = copy.deepcopy(CASES[case])
    after = {key: value[family] if key == "depth" else value for key, value in after.items()}
    checkpoint = checkpoint_of(architecture(family, **before))
    network = build_network(architecture(family, **after), num_input_channels=channels)
    initial = initial_tensors(network)
    decoder = copy.deepcopy(
        {n: t for n, t in network.state_dict().items() if not n.startswith(("encoder.", "decoder.enc"))}
    )
    report = load_encoder(network, checkpoint)
    assert_report_tells_the_tensors(report, network, checkpoint, initial)
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in decoder.items())
    promise(network, checkpoint)
    train_one_step(network, channels, checkpoint.weights)


@pytest.mark.parametrize("family", ["plain", "residual"])
@pytest.mark.parametrize("n_stages", [4, 5, 6, 7])
@pytest.mark.parametrize("kernels", ["isotropic", "anisotropic"])
@pytest.mark.parametrize("channels", [1, 4])
def test_plans_of_all_depths_get_the_stages_they_share(family: str, n_stages: int, kernels: str, channels: int) -> None:
    def strides(count: int) -> list[list[int]]:
        return [[1, 1, 1], *[[2, 2, 2]] * 3, *[[1, 1, 1]] * 3][:count]

    size = {"n_stages": 5, "features_per_stage": [4, 8, 8, 8, 8], "strides": strides(5)}
    checkpoint = checkpoint_of(architecture(family, **size))
    network = build_network(
        architecture(
            family,
            n_stages=n_stages,
            strides=strides(n_stages),
            features_per_stage=[4, *[8] * (n_stages - 1)],
            kernel_sizes=[[1 if kernels == "anisotropic" and s < 2 else 3, 3, 3] for s in range(n_stages)],
        ),
        num_input_channels=channels,
    )
    initial = initial_tensors(network)
    report = load_encoder(network, checkpoint)
    assert_report_tells_the_tensors(report, network, checkpoint, initial)
    for stage, records in report.stages().items():
        states = {record.state for record in records}
        if stage in ("stage 5", "stage 6"):
            assert states == {"random"}
        else:
            assert states <= {"copied", "adapted"}
    assert bool(report.unused) == (n_stages < 5)
    train_one_step(network, channels, checkpoint.weights)


@pytest.mark.parametrize("family", ["plain", "residual"])
@pytest.mark.parametrize("kernels", ["isotropic", "anisotropic"])
@pytest.mark.parametrize("channels", [1, 4])
def test_narrower_network_gets_leading_channels(family: str, kernels: str, channels: int) -> None:
    checkpoint = checkpoint_of(architecture(family))
    changes = {"kernel_sizes": ANISOTROPIC} if kernels == "anisotropic" else {}
    network = build_network(
        architecture(family, features_per_stage=[4, 8, 12, 12], **changes), num_input_channels=channels
    )
    initial = initial_tensors(network)
    report = load_encoder(network, checkpoint)
    assert_report_tells_the_tensors(report, network, checkpoint, initial)
    assert report.share == 1
    train_one_step(network, channels, checkpoint.weights)
