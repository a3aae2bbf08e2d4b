import pytest
import torch

from nnunetv2_voco.cost import network_cost
from nnunetv2_voco.encoder import PLAIN_FEATURES, build_network, plain_architecture, residual_architecture
from nnunetv2_voco.scales import SCALES, scaled

BASE = plain_architecture()


def convolution_parameters(scale: str) -> int:
    """Of the encoder, counted by hand: 3 × 3 × 3 kernels with bias, a norm of two values per channel."""
    width, depth = SCALES[scale]
    features = [int(f * width) for f in PLAIN_FEATURES]
    total, before = 0, 1
    for count in features:
        for _ in range(depth):
            total += 27 * before * count + 3 * count
            before = count
    return total


@pytest.mark.parametrize("scale", SCALES)
def test_widths_and_depths_follow_the_rule(scale: str) -> None:
    architecture = scaled(BASE, scale)
    assert architecture.features == tuple(int(f * SCALES[scale].width) for f in PLAIN_FEATURES)
    assert architecture.strides.tolist() == BASE.strides.tolist()
    assert network_cost(architecture, (64, 64, 64), encoder_only=True).parameters == convolution_parameters(scale)


def test_b_is_nnunets_own() -> None:
    assert scaled(BASE, "B") == BASE


def test_decoders_deepen_with_their_encoders() -> None:
    kwargs = scaled(BASE, "L").arch_kwargs
    assert kwargs["n_conv_per_stage"] == [3] * 6
    assert kwargs["n_conv_per_stage_decoder"] == [3] * 5


def test_sizes_grow_as_the_rule_says() -> None:
    costs = {scale: network_cost(scaled(BASE, scale), (64, 64, 64), encoder_only=True) for scale in SCALES}
    for scale, growth in (("L", 1.5), ("H", 2.0)):
        assert costs[scale].parameters / costs["B"].parameters == pytest.approx(growth**3, rel=0.1)
        assert costs[scale].flops / costs["B"].flops == pytest.approx(growth**3, rel=0.35)  # the first layer sees 1
        assert costs[scale].activation_bytes / costs["B"].activation_bytes == pytest.approx(growth**2, rel=0.01)
    assert costs["S"].activation_bytes / costs["B"].activation_bytes == pytest.approx(0.5, rel=0.01)


def test_channels_of_odd_networks_stay_whole() -> None:
    assert scaled(plain_architecture((4, 8, 30)), "L").features == (6, 12, 48)
    assert scaled(plain_architecture((1, 2)), "S").features == (1, 1)


def test_residual_networks_and_unknown_scales_are_refused() -> None:
    with pytest.raises(ValueError, match="resenc-m, resenc-l and resenc-xl"):
        scaled(residual_architecture(), "L")
    with pytest.raises(ValueError, match="must be one of S, B, L, H"):
        scaled(BASE, "XL")


def test_flops_of_one_convolution_are_those_of_the_textbook() -> None:
    architecture = plain_architecture((8, 8))
    one = 2 * 27 * 8 * 8
    expected = 16**3 * (2 * 27 * 1 * 8 + one) + 8**3 * 2 * one
    assert network_cost(architecture, (16, 16, 16), encoder_only=True).flops == expected


def test_activation_memory_is_what_autograd_keeps_of_real_tensors() -> None:
    architecture = plain_architecture((8, 16, 16))
    network = build_network(architecture, num_input_channels=1)
    parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = network(torch.zeros(1, 1, 16, 16, 16))
    result.sum().backward()
    measured = sum(storage.nbytes() for storage in kept.values())
    foreseen = network_cost(architecture, (16, 16, 16), encoder_only=False).activation_bytes
    assert foreseen == pytest.approx(measured, rel=0.05)


def test_crops_that_do_not_pass_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of the network's stride"):
        network_cost(BASE, (48, 64, 64), encoder_only=True)
