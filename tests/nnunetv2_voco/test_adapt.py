import pytest
import torch
from torch.nn.functional import conv3d, instance_norm

from nnunetv2_voco.adapt import CannotAdapt, adapt, adapt_input_channels, adapt_kernel, adapt_width


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def same_padding(weight: torch.Tensor) -> list[int]:
    return [(length - 1) // 2 for length in weight.shape[2:]]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("old", "new"), [((1, 3, 3), (3, 3, 3)), ((1, 1, 3), (5, 3, 3)), ((3, 3, 3), (3, 5, 7))])
def test_longer_kernel_gives_the_same_output_for_every_input(old: tuple, new: tuple, stride: int) -> None:
    weight, image = torch.randn(4, 2, *old), torch.randn(1, 2, 8, 9, 10)
    wider = adapt_kernel(weight, new)
    before = conv3d(image, weight, padding=same_padding(weight), stride=stride)
    torch.testing.assert_close(conv3d(image, wider, padding=same_padding(wider), stride=stride), before)


@pytest.mark.parametrize(("old", "new"), [((3, 3, 3), (1, 3, 3)), ((5, 3, 3), (3, 3, 3)), ((7, 3, 3), (3, 3, 3))])
def test_shorter_kernel_gives_the_same_output_where_the_input_is_constant_along_the_axis(
    old: tuple, new: tuple
) -> None:
    weight, slice_yx = torch.randn(4, 2, *old), torch.randn(1, 2, 1, 9, 10)
    image = slice_yx.expand(-1, -1, 12, -1, -1)
    shorter = adapt_kernel(weight, new)
    before = conv3d(image, weight, padding=(0, 1, 1))
    after = conv3d(image, shorter, padding=(0, 1, 1))[:, :, : before.shape[2]]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_kernels_of_odd_and_even_length_do_not_meet() -> None:
    with pytest.raises(CannotAdapt, match="3×3×3 has no common centre with 2×3×3"):
        adapt_kernel(torch.zeros(1, 1, 3, 3, 3), (2, 3, 3))


@pytest.mark.parametrize(("old", "new"), [(1, 4), (4, 1), (2, 3), (3, 2)])
def test_output_is_the_same_when_all_channels_show_the_same_image(old: int, new: int) -> None:
    weight, image = torch.randn(5, old, 3, 3, 3), torch.randn(1, 1, 6, 6, 6)
    adapted = adapt_input_channels(weight, new)
    before = conv3d(image.expand(-1, old, -1, -1, -1), weight)
    torch.testing.assert_close(conv3d(image.expand(-1, new, -1, -1, -1), adapted), before, rtol=1e-4, atol=1e-5)


def test_output_does_not_depend_on_a_cascades_labels_at_first() -> None:
    weight, image, labels = torch.randn(5, 1, 3, 3, 3), torch.randn(1, 1, 6, 6, 6), torch.rand(1, 3, 6, 6, 6)
    adapted = adapt_input_channels(weight, 4, num_label_channels=3)
    torch.testing.assert_close(conv3d(torch.cat((image, labels), dim=1), adapted), conv3d(image, weight))


def test_leading_channels_of_a_wider_layer_are_computed_as_before() -> None:
    source, target = torch.randn(4, 3, 3, 3, 3), torch.randn(6, 5, 3, 3, 3)
    wider, count = adapt_width(source, target)
    image = torch.randn(1, 5, 6, 6, 6)
    torch.testing.assert_close(
        instance_norm(conv3d(image, wider))[:, :4], instance_norm(conv3d(image[:, :3], source)), rtol=1e-4, atol=1e-5
    )
    assert count == source.numel()
    assert torch.equal(wider[4:], target[4:])


def test_narrower_layer_gets_the_leading_channels() -> None:
    source, target = torch.randn(6, 5, 3, 3, 3), torch.randn(4, 3, 3, 3, 3)
    narrower, count = adapt_width(source, target)
    assert torch.equal(narrower, source[:4, :3])
    assert count == target.numel()


def test_equal_shapes_are_copied_without_a_rule() -> None:
    source = torch.randn(4, 2, 3, 3, 3)
    result, count, rules = adapt(source, torch.zeros_like(source))
    assert torch.equal(result, source)
    assert (count, rules) == (source.numel(), ())


def test_all_rules_together_are_named() -> None:
    _, count, rules = adapt(
        torch.randn(4, 1, 3, 3, 3), torch.randn(6, 2, 1, 3, 3), is_input_projection=True, num_label_channels=0
    )
    assert rules == ("kernel 3×3×3 → 1×3×3", "input channels 1 → 2", "width 4 → 6, leading channels")
    assert count == 4 * 2 * 9


def test_2d_weights_do_not_become_3d() -> None:
    with pytest.raises(CannotAdapt, match="no rule leads from shape 4×1×3×3 to 4×1×3×3×3"):
        adapt(torch.zeros(4, 1, 3, 3), torch.zeros(4, 1, 3, 3, 3))
