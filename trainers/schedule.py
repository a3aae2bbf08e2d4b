"""Learning rates as functions of the epoch, so that a continued training goes on where it was."""

from collections.abc import Callable, Sequence

from torch.optim import Optimizer

EXPONENT = 0.9
"""Of the polynomial decay; nnU-Net's."""


def linear_lr(epoch: int, *, start: int, length: int, peak: float) -> float:
    """Rise from peak / length in epoch `start` to `peak` in the last of `length` epochs."""
    return peak * (1 + epoch - start) / length


def polynomial_lr(epoch: int, *, start: int, end: int, peak: float) -> float:
    """Fall from `peak` in epoch `start` to zero in epoch `end`, which is not trained: nnU-Net's polynomial decay."""
    return peak * (1 - (epoch - start) / (end - start)) ** EXPONENT


def warmup_lr(epoch: int, *, peak: float, warmup: int, total: int, start: int = 0) -> float:
    """Rise for `warmup` epochs from epoch `start` on, then fall until epoch `total`."""
    if epoch < start + warmup:
        return linear_lr(epoch, start=start, length=warmup, peak=peak)
    return polynomial_lr(epoch, start=start + warmup, end=total, peak=peak)


def sawtooth_lr(epoch: int, *, peak: float, decoder: int, warmup: int, total: int) -> tuple[float, float]:
    """Give two teeth: `decoder` epochs for the decoder alone, half of them its warm-up, then `warmup_lr` for all.

    Returns:
        The learning rates of decoder and encoder; the latter is zero during the first tooth.
    """
    if epoch < decoder:
        return warmup_lr(epoch, peak=peak, warmup=decoder // 2, total=decoder), 0.0
    lr = warmup_lr(epoch, peak=peak, warmup=warmup, total=total, start=decoder)
    return lr, lr


class EpochLRScheduler:
    """Sets the learning rate of each parameter group from the epoch alone; it has no state to save.

    Args:
        optimizer: Its groups get the rates, in their order.
        rates: Maps an epoch to one learning rate per group.
    """

    def __init__(self, optimizer: Optimizer, rates: Callable[[int], Sequence[float]]) -> None:
        self.optimizer = optimizer
        self.rates = rates
        self.step(0)

    def step(self, current_step: int) -> None:
        """Set the rates of epoch `current_step`; nnU-Net calls this when an epoch starts."""
        for group, rate in zip(self.optimizer.param_groups, self.rates(current_step), strict=True):
            group["lr"] = rate

    def get_last_lr(self) -> list[float]:
        """Return the rates that are set."""
        return [group["lr"] for group in self.optimizer.param_groups]
