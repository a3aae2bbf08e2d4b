"""Choosing the autocast type, and not trusting it unseen."""

import copy
from collections.abc import Callable

import torch
from torch import nn

LEAST_COSINE = 0.9
"""Least cosine between the gradients of a reduced precision and of fp32, over the same step."""

TYPES: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def requested_precision(name: str, device: torch.device) -> str:
    """Resolve "auto": bf16 on a GPU that computes in it, fp16 on an older one, fp32 elsewhere."""
    if name != "auto":
        return name
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def autocast_context(precision: str, device: torch.device) -> torch.autocast:
    """Return the context of a forward pass."""
    dtype = TYPES[precision]
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def check_precision(
    model: nn.Module, loss_of: Callable[[nn.Module], torch.Tensor], precision: str, device: torch.device
) -> str | None:
    """Compare one step in a reduced precision with the same step in fp32; the model is left as it was.

    Some kernels return infinite or wrong weight gradients in a reduced precision for some shapes.

    Args:
        model: The model, without wrappers.
        loss_of: Computes the loss of a fixed batch with the model it is handed.
        precision: "bf16" or "fp16".
        device: Where to compute.

    Returns:
        None if the precision is sound, else what is wrong with it, in words.
    """
    exact = _gradient(model, loss_of, "fp32", device)
    reduced = _gradient(model, loss_of, precision, device)
    if not torch.isfinite(reduced).all():
        share = 1 - torch.isfinite(reduced).double().mean().item()
        return f"{share:.1%} of the gradient is not finite"
    cosine = torch.nn.functional.cosine_similarity(exact, reduced, dim=0).item()
    if not cosine >= LEAST_COSINE:  # it may be NaN
        return f"its gradient has a cosine of {cosine:.2f} with that of fp32, where at least {LEAST_COSINE} is expected"
    return None


def _gradient(
    model: nn.Module, loss_of: Callable[[nn.Module], torch.Tensor], precision: str, device: torch.device
) -> torch.Tensor:
    trial = copy.deepcopy(model)
    with autocast_context(precision, device):
        loss = loss_of(trial)
    scale = 1024.0 if precision == "fp16" else 1.0  # as a gradient scaler would
    (loss * scale).backward()
    gradients = [p.grad.flatten() / scale for p in trial.parameters() if p.grad is not None]
    return torch.cat(gradients).double()
