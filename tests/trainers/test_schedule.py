import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from nnunetv2_voco.trainers.schedule import EpochLRScheduler, linear_lr, polynomial_lr, sawtooth_lr, warmup_lr


def test_polynomial_decay_is_nnunets() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    stock = PolyLRScheduler(optimizer, 1e-2, 100)
    for epoch in range(100):
        stock.step(epoch)
        assert polynomial_lr(epoch, start=0, end=100, peak=1e-2) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_warmup_rises_to_the_peak_and_decays_from_it() -> None:
    rates = [warmup_lr(epoch, peak=1e-3, warmup=50, total=1000) for epoch in range(1000)]
    assert rates[0] == pytest.approx(1e-3 / 50)
    assert rates[49] == rates[50] == max(rates) == 1e-3
    assert rates[:50] == sorted(rates[:50])
    assert rates[50:] == sorted(rates[50:], reverse=True)
    assert rates[525] == pytest.approx(1e-3 * 0.5**0.9)
    assert rates[999] > 0


def test_sawtooth_has_two_teeth_of_which_the_first_spares_the_encoder() -> None:
    rates = [sawtooth_lr(epoch, peak=1e-3, decoder=50, warmup=50, total=1000) for epoch in range(1000)]
    decoder, encoder = zip(*rates, strict=True)
    assert not any(encoder[:50])
    assert encoder[50:] == decoder[50:]
    assert decoder[24] == decoder[25] == decoder[99] == decoder[100] == max(decoder) == 1e-3
    assert 0 < decoder[49] < 1e-4
    assert decoder[50] == pytest.approx(1e-3 / 50)


@pytest.mark.parametrize(("start", "length"), [(0, 1), (7, 10)])
def test_linear_rise_ends_at_the_peak(start: int, length: int) -> None:
    assert linear_lr(start + length - 1, start=start, length=length, peak=2.0) == 2.0


def test_scheduler_sets_each_groups_rate_from_the_epoch_alone() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [p]} for p in parameters], lr=1.0)
    scheduler = EpochLRScheduler(optimizer, lambda epoch: (epoch, 10 * epoch))
    assert scheduler.get_last_lr() == [0, 0]
    scheduler.step(7)
    assert [group["lr"] for group in optimizer.param_groups] == scheduler.get_last_lr() == [7, 70]
