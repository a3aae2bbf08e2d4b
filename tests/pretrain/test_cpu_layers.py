import copy

import pytest
import torch
from torch import nn

from nnunetv2_voco.encoder import build_encoder, plain_architecture, residual_architecture
from nnunetv2_voco.features import pooled_embedding
from nnunetv2_voco.pretrain.config import PretrainConfig
from nnunetv2_voco.pretrain.cpu_layers import ChannelsLastInstanceNorm3d, use_cpu_layers
from nnunetv2_voco.pretrain.step import quicken

FEATURES = (4, 6, 8)


def anisotropic():
    architecture = plain_architecture(FEATURES)
    architecture.arch_kwargs["strides"] = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
    architecture.arch_kwargs["kernel_sizes"] = [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
    return architecture


ARCHITECTURES = {
    "plain": plain_architecture(FEATURES),
    "residual": residual_architecture(FEATURES, (1, 2, 2)),
    "anisotropic": anisotropic(),
}


def gradients(encoder, crops):
    crops = crops.clone().requires_grad_()
    features = pooled_embedding(encoder(crops))
    features.square().sum().backward()
    return features.detach(), crops.grad, {name: p.grad for name, p in encoder.named_parameters()}


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_features_and_gradients_are_those_of_torchs_layers(architecture):
    torch.manual_seed(0)
    theirs = build_encoder(architecture).double()
    for norm in (m for m in theirs.modules() if isinstance(m, nn.InstanceNorm3d)):
        nn.init.normal_(norm.weight, 1.0)
        nn.init.normal_(norm.bias)
    ours = copy.deepcopy(theirs)
    use_cpu_layers(ours)
    crops = torch.randn(3, 1, 12, 8, 16, dtype=torch.float64)
    their_features, their_image_gradient, their_gradients = gradients(theirs, crops)
    features, image_gradient, parameter_gradients = gradients(ours, crops)
    torch.testing.assert_close(features, their_features, rtol=0, atol=1e-12)
    torch.testing.assert_close(image_gradient, their_image_gradient, rtol=0, atol=1e-12)
    assert parameter_gradients.keys() == their_gradients.keys()
    for name, gradient in parameter_gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], rtol=0, atol=1e-10, msg=name)


def test_every_norm_of_nnunets_encoder_is_quick_and_names_stay():
    encoder = build_encoder(plain_architecture(FEATURES))
    names, norms = list(encoder.state_dict()), sum(isinstance(m, nn.InstanceNorm3d) for m in encoder.modules())
    use_cpu_layers(encoder)
    assert sum(isinstance(m, ChannelsLastInstanceNorm3d) for m in encoder.modules()) == norms > 0
    assert list(encoder.state_dict()) == names
    for stage in encoder(torch.randn(2, 1, 16, 16, 16)):
        assert stage.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("affine", [False, True])
def test_norms_with_and_without_parameters_are_torchs_in_float32(affine):
    theirs, ours = (nn.Sequential(nn.InstanceNorm3d(5, affine=affine)) for _ in range(2))
    use_cpu_layers(ours)
    images = torch.randn(2, 5, 4, 6, 8) * 3 + 7
    torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)


def test_a_norm_of_running_statistics_stays_as_it_is():
    layers = nn.Sequential(nn.InstanceNorm3d(4, track_running_stats=True))
    use_cpu_layers(layers)
    assert type(layers[0]) is nn.InstanceNorm3d


def test_a_frozen_layer_gets_no_gradient():
    layers = nn.Sequential(nn.Conv3d(2, 3, 3, stride=2), nn.InstanceNorm3d(3, affine=True))
    use_cpu_layers(layers)
    layers.requires_grad_(False)
    image = torch.randn(1, 2, 7, 7, 7, requires_grad=True)
    layers(image).sum().backward()
    assert layers[0].weight.grad is layers[1].weight.grad is None
    assert image.grad is not None


@pytest.mark.parametrize(
    ("device", "precision", "compiled", "quick"),
    [
        ("cpu", "fp32", False, True),
        ("cpu", "bf16", False, False),
        ("cpu", "fp32", True, False),
        ("cuda", "fp32", False, False),
    ],
)
def test_a_run_takes_them_on_a_cpu_in_float32(device, precision, compiled, quick):
    encoder = build_encoder(plain_architecture(FEATURES))
    quicken(encoder, PretrainConfig(compile=compiled), precision, torch.device(device))
    assert any(isinstance(m, ChannelsLastInstanceNorm3d) for m in encoder.modules()) is quick
