import io
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch import nn

from nnunetv2_voco.pretrain import step
from nnunetv2_voco.pretrain.config import PretrainConfig
from nnunetv2_voco.pretrain.dataset import Sample
from nnunetv2_voco.pretrain.feed import Batch
from nnunetv2_voco.pretrain.precision import autocast_context, check_precision, requested_precision
from tests.pretrain.tiny_run import LOSS, make_model, random_batch

CPU = torch.device("cpu")


class Broken(torch.autograd.Function):
    """Identity whose gradient is multiplied by `factor` under autocast."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor if torch.is_autocast_enabled("cpu") else 1.0
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.factor, None


class Model(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.linear = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Broken.apply(self.linear(x), self.factor).float().square().mean()


def fault_of(factor: float, precision: str = "bf16") -> str | None:
    torch.manual_seed(0)
    x = torch.randn(16, 8)
    return check_precision(Model(factor), lambda trial: trial(x), precision, CPU)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_sound_precision_is_accepted(precision):
    assert fault_of(1.0, precision) is None


@pytest.mark.parametrize("factor", [float("inf"), float("nan")])
def test_gradient_that_is_not_finite_is_found(factor):
    assert "not finite" in fault_of(factor)


def test_gradient_in_the_wrong_direction_is_found():
    assert "cosine of -1.00" in fault_of(-1.0)


def test_gradient_without_a_direction_is_not_trusted():
    assert "cosine" in fault_of(0.0)


def test_check_leaves_the_model_as_it_was():
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    check_precision(model, lambda trial: trial(*random_batch(), **LOSS).total, "bf16", CPU)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_auto_is_fp32_on_a_cpu_and_a_given_precision_is_kept():
    assert requested_precision("auto", CPU) == "fp32"
    assert requested_precision("bf16", CPU) == "bf16"


def test_context_computes_in_the_named_type():
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        with autocast_context(precision, CPU):
            assert nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize(("fault", "expected"), [(None, "bf16"), ("3.0% of the gradient is not finite", "fp32")])
def test_unsound_precision_falls_back_with_a_message(fault, expected, monkeypatch):
    monkeypatch.setattr(step, "check_precision", lambda *_: fault)
    feed = SimpleNamespace(trial=lambda device: Batch(Sample(*random_batch()), None))
    console = Console(record=True, width=200, file=io.StringIO())
    got = step.sound_precision(PretrainConfig(precision="bf16"), make_model(), feed, CPU, console)
    assert got == expected
    said = console.export_text()
    assert (fault in said and "fp32" in said) if fault else said == ""
