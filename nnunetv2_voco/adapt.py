"""Fitting one tensor of a pre-trained encoder to the shape that another network has at the same place.

Every rule is a pure function and says what it preserves. Convolution weights are (out, in, z, y, x), or with other
spatial axes; biases and norms are (out,).
"""

import torch
from torch import Tensor


class CannotAdapt(ValueError):
    """No rule leads from the one shape to the other."""


def adapt_kernel(weight: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """Give a convolution weight another kernel, axis by axis.

    A longer axis gets zeros around the old taps: the output stays the same for every input, as nnU-Net pads by
    (kernel - 1) // 2. On a shorter axis the taps that fall outside are added to the outermost ones that stay, so that
    3 to 1 is the sum: the output stays the same wherever the input is constant along that axis.

    Raises:
        CannotAdapt: If an axis changes between odd and even length, for then the centres do not meet.
    """
    for axis, (old, new) in enumerate(zip(weight.shape[2:], kernel, strict=True), start=2):
        if (old - new) % 2:
            raise CannotAdapt(f"kernel {_times(weight.shape[2:])} has no common centre with {_times(kernel)}")
        margin = abs(new - old) // 2
        if new > old:
            padding = list(weight.shape)
            padding[axis] = margin
            zeros = weight.new_zeros(padding)
            weight = torch.cat((zeros, weight, zeros), dim=axis)
        elif new < old:
            kept = weight.narrow(axis, margin, new).clone()
            kept.select(axis, 0).add_(weight.narrow(axis, 0, margin).sum(axis))
            kept.select(axis, new - 1).add_(weight.narrow(axis, margin + new, margin).sum(axis))
            weight = kept
    return weight


def adapt_input_channels(weight: Tensor, channels: int, *, num_label_channels: int = 0) -> Tensor:
    """Give the first convolution another number of input channels.

    From one channel to N the weight is repeated and divided by N, from N to one it is summed, from N to M first the one
    and then the other: the output stays the same when all image channels show the same image. The label channels of a
    cascade come last and start at zero: the output does not depend on them until training makes it.

    Args:
        weight: Weight of the first convolution, (out, in, ...).
        channels: Input channels wanted, label channels included.
        num_label_channels: How many of them, at the end, are the one-hot labels of a cascade's previous stage.
    """
    num_images = channels - num_label_channels
    if weight.shape[1] != num_images:
        total = weight.sum(dim=1, keepdim=True)
        weight = total.repeat_interleave(num_images, dim=1) / num_images
    labels = weight.new_zeros((weight.shape[0], num_label_channels, *weight.shape[2:]))
    return torch.cat((weight, labels), dim=1)


def adapt_width(source: Tensor, target: Tensor) -> tuple[Tensor, int]:
    """Place the leading channels of `source` in a copy of `target`.

    Where `target` is wider, its new channels keep their values, and the connections from new input channels to the old
    output channels are set to zero: as nnU-Net normalises each channel by itself, the leading features are computed
    exactly as before. Where `target` is narrower, the leading channels are a start and nothing is preserved.

    Args:
        source: Tensor (out, in, ...) or (out,); kernels must be equal.
        target: The tensor of the network, which says the shape and the values of new channels.

    Returns:
        The new tensor and how many of its elements come from `source`.
    """
    result = target.detach().clone()
    out = min(source.shape[0], target.shape[0])
    if source.ndim == 1:
        result[:out] = source[:out]
        return result, out
    into = min(source.shape[1], target.shape[1])
    result[:out] = 0
    result[:out, :into] = source[:out, :into]
    return result, result[:out, :into].numel()


def adapt(
    source: Tensor, target: Tensor, *, is_input_projection: bool = False, num_label_channels: int = 0
) -> tuple[Tensor, int, tuple[str, ...]]:
    """Fit `source` to the shape of `target` by the rules above: kernel, input channels, width.

    Args:
        source: Tensor of the checkpoint.
        target: Tensor of the network at the same place.
        is_input_projection: Whether this is the convolution that meets the image.
        num_label_channels: See `adapt_input_channels`.

    Returns:
        The tensor to put in place of `target`, how many of its elements the checkpoint determines, and the rules that
        were applied, in words; none when the shapes were equal.

    Raises:
        CannotAdapt: If no rule fits.
    """
    source = source.detach().to(device=target.device, dtype=target.dtype)
    if source.shape == target.shape:
        return source, source.numel(), ()
    if source.ndim != target.ndim or source.ndim not in (1, 3, 4, 5):
        raise CannotAdapt(f"no rule leads from shape {_times(source.shape)} to {_times(target.shape)}")
    rules = []
    if source.ndim > 1:
        if source.shape[2:] != target.shape[2:]:
            rules.append(f"kernel {_times(source.shape[2:])} → {_times(target.shape[2:])}")
            source = adapt_kernel(source, tuple(target.shape[2:]))
        if is_input_projection and source.shape[1] != target.shape[1]:
            rules.append(f"input channels {source.shape[1]} → {target.shape[1]}")
            source = adapt_input_channels(source, target.shape[1], num_label_channels=num_label_channels)
    if source.shape == target.shape:
        return source, source.numel(), tuple(rules)
    axis, what = (0, "width") if source.shape[0] != target.shape[0] else (1, "width of the input")
    rules.append(f"{what} {source.shape[axis]} → {target.shape[axis]}, leading channels")
    result, determined = adapt_width(source, target)
    return result, determined, tuple(rules)


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(str(length) for length in shape)
