"""Which device an encoder runs on."""

import torch


def usable_device(name: str) -> torch.device:
    """Return the device after having tried it.

    Raises:
        ValueError: If there is no such device here.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name}: cannot be used here ({reason}); take --device cpu") from None
    return device
