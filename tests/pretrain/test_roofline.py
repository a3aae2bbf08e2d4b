import pytest

from nnunetv2_voco.encoder import plain_architecture
from nnunetv2_voco.pretrain.roofline import (
    ARITHMETIC_SHARE,
    BANDWIDTH_SHARE,
    BYTES_PER_PARAMETER,
    CONTEXT_BYTES,
    GPUS,
    CropCost,
    cost_of_a_crop,
    parse_gpus,
)

SLOW = CropCost(forward=((4e9, 1.0),), backward=((1.0, 6e9),), kept=100.0, parameters=0)
"""Arithmetic rules forward, traffic backward."""


@pytest.fixture(scope="module")
def cost() -> CropCost:
    return cost_of_a_crop(plain_architecture((4, 8)), (16, 16, 16))


def convolution(channels_in: int, channels_out: int, edge: int) -> int:
    return 2 * channels_in * channels_out * 27 * edge**3


def test_flops_are_those_of_the_convolutions(cost):
    first, *others = convolution(1, 4, 16), convolution(4, 4, 16), convolution(4, 8, 8), convolution(8, 8, 8)
    assert sum(flops for flops, _ in cost.forward) == first + sum(others)
    # the gradient of the crop itself is not needed
    assert sum(flops for flops, _ in cost.backward) == first + 2 * sum(others)
    assert cost.flops == 2 * first + 3 * sum(others)


def test_traffic_holds_at_least_every_feature_map_written_and_read(cost):
    maps = 2 * (2 * 4 * 16**3 + 2 * 8 * 8**3)
    assert sum(traffic for _, traffic in cost.forward) > 4 * maps


def test_kept_bytes_are_those_of_the_feature_maps_that_norms_and_convolutions_need(cost):
    maps = 2 * (2 * 4 * 16**3 + 2 * 8 * 8**3)  # two convolutions a stage, 16 bits
    assert 2 * maps <= cost.kept < 3 * maps


def test_cost_grows_with_the_crops_volume(cost):
    eightfold = cost_of_a_crop(plain_architecture((4, 8)), (32, 32, 32))
    assert eightfold.flops == 8 * cost.flops
    assert eightfold.parameters == cost.parameters
    assert eightfold.kept == pytest.approx(8 * cost.kept, rel=0.05)


def test_each_operation_takes_the_longer_of_arithmetic_and_traffic():
    gpu = GPUS["a100"]
    forward = 4e9 / (gpu.tflops * 1e12 * ARITHMETIC_SHARE)
    backward = 6e9 / (gpu.bandwidth * 1e9 * BANDWIDTH_SHARE)
    assert SLOW.seconds(gpu, crops=10, chunked=False) == pytest.approx(10 * (forward + backward))
    assert SLOW.seconds(gpu, crops=10, chunked=True) == pytest.approx(10 * (2 * forward + backward))


def test_memory_grows_with_the_crops_at_once(cost):
    none, some = cost.memory(crops_at_once=0), cost.memory(crops_at_once=10)
    assert none == pytest.approx(cost.parameters * BYTES_PER_PARAMETER + CONTEXT_BYTES)
    assert some - none >= 10 * cost.kept


def test_default_network_at_the_published_crop_size():
    cost = cost_of_a_crop(plain_architecture(), (64, 64, 64))
    assert cost.flops == pytest.approx(104e9, rel=0.01)
    assert cost.parameters == pytest.approx(14.0e6, rel=0.01)


@pytest.mark.parametrize(
    ("text", "expected"), [("h100", (1, "h100")), ("8xH100", (8, "h100")), ("2xrtx4090", (2, "rtx4090"))]
)
def test_gpus_are_read_with_and_without_number(text, expected):
    assert parse_gpus(text) == expected


@pytest.mark.parametrize("text", ["", "8x", "h101", "xh100", "0xh100", "-1xh100", "8 h100"])
def test_unknown_gpus_are_refused_with_the_known_ones(text):
    with pytest.raises(ValueError, match="expected one of t4"):
        parse_gpus(text)
