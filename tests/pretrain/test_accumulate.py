import json
from pathlib import Path

import pytest
import torch

from nnunetv2_voco.pretrain.config import PretrainConfig
from nnunetv2_voco.pretrain.dataset import Sample, StepSampler, join_batches
from nnunetv2_voco.pretrain.loop import TrainingStopped
from nnunetv2_voco.pretrain.state import Progress
from tests.pretrain.tiny_run import random_batch, run_tiny, same_bits, weights, write_ct

SHORT = {"steps": 4, "val_every": 4, "decoder_weight": 1.0}


def numbers(**settings) -> list[list[int]]:
    return list(StepSampler(**{"first_step": 0, "steps": 4, "rank": 0, "world_size": 1, "batch_size": 2, **settings}))


def training_records(out: Path) -> list[dict]:
    records = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [record for record in records if record["kind"] == "training"]


@pytest.fixture(scope="module")
def ct(tmp_path_factory) -> Path:
    return write_ct(tmp_path_factory.mktemp("ct"))


@pytest.fixture(scope="module")
def larger_batch(ct, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "larger"
    run_tiny(ct, out, **SHORT, batch_size=4)
    return out


def test_joined_batches_of_a_step_are_one_larger_batch():
    for rank in range(2):
        small = numbers(accumulate=3, rank=rank, world_size=2)
        joined = [sum(small[i : i + 3], []) for i in range(0, len(small), 3)]
        assert joined == numbers(batch_size=6, rank=rank, world_size=2)
    assert len(StepSampler(first_step=1, steps=4, batch_size=2, rank=0, world_size=1, accumulate=3)) == 9


def test_accumulating_resumes_at_the_step():
    assert numbers(accumulate=3, first_step=2) == numbers(accumulate=3)[6:]


def test_joining_keeps_the_order_of_volumes():
    batches = [Sample(*random_batch(seed)) for seed in range(3)]
    joined = join_batches(batches)
    assert joined.crops.shape[0] == 6
    assert all(torch.equal(field[2:4], part) for field, part in zip(joined, batches[1], strict=True))
    assert join_batches(batches[:1]) is batches[0]


def test_accumulating_keeps_to_the_memory_of_one_batch():
    assert PretrainConfig().crops_at_once is None
    assert PretrainConfig(batch_size=3, accumulate=5).crops_at_once == 3 * (2 + 8)
    assert PretrainConfig(batch_size=3, accumulate=5, chunk=4).crops_at_once == 4


@pytest.mark.parametrize("setting", [{"accumulate": 0}, {"chunk": 0}])
def test_numbers_below_one_are_refused(setting):
    with pytest.raises(ValueError, match="must be positive"):
        PretrainConfig(**setting)


def test_run_goes_on_with_the_same_volumes_a_step():
    progress = Progress(processes=2, accumulate=4)
    assert progress.goes_on_with(processes=8, accumulate=1, gather=True)
    assert not progress.goes_on_with(processes=2, accumulate=3, gather=True)
    assert not progress.goes_on_with(processes=8, accumulate=1, gather=False)
    assert progress.goes_on_with(processes=2, accumulate=4, gather=False)


@pytest.mark.slow
def test_accumulated_run_is_that_with_the_larger_batch(ct, larger_batch, tmp_path):
    run_tiny(ct, tmp_path / "joined", **SHORT, batch_size=2, accumulate=2, chunk=44)  # one pass: the same to the bit
    assert same_bits(weights(tmp_path / "joined"), weights(larger_batch))
    run_tiny(ct, tmp_path / "chunked", **SHORT, batch_size=2, accumulate=2)
    records = zip(training_records(tmp_path / "chunked"), training_records(larger_batch), strict=True)
    for chunked, whole in records:
        for term in ("intra", "inter", "reg", "decoder", "total", "grad_norm"):
            assert chunked[term] == pytest.approx(whole[term], rel=1e-3)


@pytest.mark.slow
def test_accumulated_run_continues_exactly_and_only_with_as_many_volumes_a_step(ct, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    run_tiny(ct, whole, **SHORT, accumulate=2)
    stop_at(out, ct, step=2, **SHORT, accumulate=2)
    with pytest.raises(TrainingStopped, match="same product"):
        run_tiny(ct, out, resume=True, accumulate=3, **SHORT)
    run_tiny(ct, out, resume=True, accumulate=2, **SHORT)
    assert same_bits(weights(out), weights(whole))


def stop_at(out: Path, ct: Path, *, step: int, **settings) -> None:
    """Run until a state of `step` steps is saved, as a kill would leave it."""
    from nnunetv2_voco.pretrain import loop

    saved = loop.save_state

    def save_and_die(path, **content):
        saved(path, **content)
        if content["progress"].step == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_state", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            run_tiny(ct, out, **settings)
