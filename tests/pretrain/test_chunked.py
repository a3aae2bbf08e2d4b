import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_voco.encoder import plain_architecture
from nnunetv2_voco.pretrain import distributed
from nnunetv2_voco.pretrain.chunked import embed_in_chunks, refuse_batch_statistics
from nnunetv2_voco.pretrain.model import VoCoModel
from nnunetv2_voco.pretrain.precision import autocast_context
from tests.pretrain.tiny_run import LOSS, make_model, random_batch

CPU = torch.device("cpu")
CHUNKS = [1, 4, 7, 11, 21]  # of 22 crops: single ones, with a rest, a volume's, all but one


def double(batch):
    return tuple(tensor.double() if tensor.is_floating_point() else tensor for tensor in batch)


def gradients(model: VoCoModel, batch, *, precision: str = "fp32", scale: float = 1.0, **arguments) -> dict:
    model = copy.deepcopy(model)
    with autocast_context(precision, CPU):
        loss = model(*batch, **LOSS | arguments).total
    (loss * scale).backward()
    named = {name: p.grad / scale for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **named}


def assert_equal(a: dict, b: dict, tolerance: float) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def assert_near(a: dict, b: dict, exact: dict, tolerance: float) -> None:
    """Up to the rounding of reduced precision; of a bias that a normalisation cancels, the gradient is nothing else."""
    largest = max(gradient.norm() for gradient in exact.values())
    for name in exact:
        if exact[name].norm() < 1e-6 * largest:
            assert max(a[name].norm(), b[name].norm()) < 1e-3 * largest, name
        else:
            assert (a[name] - b[name]).norm() <= tolerance * b[name].norm(), name


@pytest.mark.parametrize(
    ("dropout", "decoder"),
    [(("element", 0.2), False), (("crop", 0.2), False), (("element", 0.0), False), (("element", 0.2), True)],
)
@pytest.mark.parametrize("chunk", CHUNKS)
def test_gradients_are_those_of_one_pass(chunk, dropout, decoder):
    model, batch = make_model(decoder=decoder).double(), double(random_batch())
    whole = gradients(model, batch, dropout=dropout)
    assert len(whole) == 1 + len([p for p in model.parameters() if p.requires_grad])
    assert_equal(gradients(model, batch, dropout=dropout, chunk=chunk), whole, 1e-10)


def test_gradients_are_those_of_one_pass_where_bases_are_invalid_and_volumes_differ():
    model, (crops, overlaps, valid, *rest) = make_model().double(), double(random_batch(volumes=3))
    valid[0, 2:5] = valid[2, 8] = False
    batch = (crops, overlaps, valid, *rest)
    assert_equal(gradients(model, batch, chunk=5), gradients(model, batch), 1e-10)


@pytest.mark.parametrize(("precision", "scale"), [("bf16", 1.0), ("fp16", 1024.0)])
def test_gradients_are_those_of_one_pass_under_autocast_and_a_gradient_scale(precision, scale):
    model, batch = make_model(), random_batch()
    whole = gradients(model, batch, precision=precision, scale=scale)
    chunked = gradients(model, batch, precision=precision, scale=scale, chunk=4)
    exact = gradients(model, batch)
    assert_near(chunked, whole, exact, 0.01)  # rounding differs between convolutions over 4 and over 22 crops
    assert any(not torch.equal(whole[name], exact[name]) for name in whole)  # autocast was at work


def test_dropout_within_the_encoder_is_the_same_in_both_passes():
    torch.manual_seed(0)
    layer, crops = nn.Linear(6, 5).double(), torch.randn(9, 6, dtype=torch.float64)
    masks = []

    def embed(chunk):
        mask = torch.rand(len(chunk), 5, dtype=torch.float64) > 0.5
        masks.append(mask)
        return layer(chunk) * mask

    embeddings = embed_in_chunks(embed, crops, size=4, device=CPU)
    embeddings.square().sum().backward()
    assert len(masks) == 6
    first, second = torch.cat(masks[:3]), torch.cat(masks[3:][::-1])  # backward goes from the last chunk to the first
    assert torch.equal(first, second)


def test_encoder_never_sees_more_crops_than_the_chunk_and_each_of_them_twice():
    model, batch, seen = make_model(), random_batch(), []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    model(*batch, **LOSS, chunk=4).total.backward()
    assert max(seen) == 4
    assert sum(seen) == 2 * 22
    seen.clear()
    model(*batch, **LOSS, chunk=22).total.backward()
    assert seen == [22]


def peak_bytes(trace: Path, volumes: int, chunk: int | None, *, decoder: bool) -> int:
    """Most bytes that a forward and a backward pass allocate at once, beside model and crops."""
    torch.manual_seed(0)
    model = VoCoModel(plain_architecture((8, 16)), random_crops=2, projection_size=16, decoder=decoder)
    crops = torch.randn(volumes, 11, 1, 16, 16, 16)
    valid, places = torch.ones(volumes, 9, dtype=torch.bool), torch.rand(volumes, 11, 2, 3)
    batch = crops, torch.rand(volumes, 2, 9).softmax(-1), valid, places, crops[:, :2]
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profile:
        model(*batch, **LOSS, chunk=chunk).total.backward()
    profile.export_chrome_trace(str(trace))
    events = [e for e in json.loads(trace.read_text())["traceEvents"] if e["name"] == "[memory]"]
    in_use = np.cumsum([e["args"]["Bytes"] for e in sorted(events, key=lambda e: e["ts"])])
    return int(in_use.max())


def test_memory_depends_on_the_chunk_and_not_on_the_batch(tmp_path):
    few, many, twice, unchunked = (
        peak_bytes(tmp_path / "trace.json", volumes, chunk, decoder=False)
        for volumes, chunk in ((2, 4), (8, 4), (2, 8), (8, None))
    )
    assert many == pytest.approx(few, rel=0.1)
    assert twice == pytest.approx(2 * few, rel=0.2)
    assert unchunked > 15 * many  # 88 crops against 4


def test_memory_of_a_decoder_depends_on_the_chunk_as_well(tmp_path):
    few, many, unchunked = (
        peak_bytes(tmp_path / "trace.json", volumes, chunk, decoder=True)
        for volumes, chunk in ((2, 4), (8, 4), (8, None))
    )
    assert many == pytest.approx(few, rel=0.1)
    assert unchunked > 8 * many


def test_compiled_encoder_takes_chunks():
    model, batch = make_model(), random_batch()
    whole = gradients(model, batch)
    model.encoder.compile(backend="aot_eager")
    loss = model(*batch, **LOSS, chunk=11).total
    loss.backward()
    compiled = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert_equal({"loss": loss.detach(), **compiled}, whole, 1e-4)


CASES = {
    "unchunked": {},
    "chunked": {"chunk": 3},
    "bf16": {"chunk": 3, "precision": "bf16"},
    "apart": {"chunk": 3, "gathered": False},
}


def _one_of_two(rank: int, folder: str) -> None:
    """Save this process's gradients of two volumes of four, as DistributedDataParallel leaves them."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.set_num_threads(1)
    for name, case in CASES.items():
        arguments = dict(case)
        autocast = autocast_context(arguments.pop("precision", "fp32"), CPU)
        model = make_model(decoder=True)
        model = model if autocast._enabled else model.double()
        wrapped = DistributedDataParallel(model, broadcast_buffers=False)
        batch = random_batch(volumes=4) if autocast._enabled else double(random_batch(volumes=4))
        with autocast:
            loss = wrapped(*(tensor[2 * rank : 2 * rank + 2] for tensor in batch), **LOSS, **arguments).total
        loss.backward()
        result = {"loss": loss.detach()} | {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        torch.save(result, f"{folder}/{name}_{rank}.pt")
    del model, wrapped, loss
    distributed.stop()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> dict[str, list[dict]]:
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(_one_of_two, (str(folder),), nprocs=2)
    return {name: [torch.load(folder / f"{name}_{r}.pt", weights_only=True) for r in range(2)] for name in CASES}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["unchunked", "chunked"])
def test_two_processes_have_the_gradients_of_one_with_all_volumes(two_processes, case):
    whole = gradients(make_model(decoder=True).double(), double(random_batch(volumes=4)))
    for result in two_processes[case]:
        assert_equal(result, whole, 1e-10)


@pytest.mark.slow
def test_two_processes_in_reduced_precision_have_nearly_those_gradients(two_processes):
    whole = gradients(make_model(decoder=True), random_batch(volumes=4), precision="bf16")
    first, second = two_processes["bf16"]
    assert_near(first, whole, gradients(make_model(decoder=True), random_batch(volumes=4)), 0.02)
    assert all(torch.equal(first[name], second[name]) for name in whole if name != "loss")


@pytest.mark.slow
def test_without_gathering_each_process_has_the_loss_of_its_own_volumes(two_processes):
    model, batch = make_model(decoder=True).double(), double(random_batch(volumes=4))
    alone = [gradients(model, tuple(tensor[i : i + 2] for tensor in batch)) for i in (0, 2)]
    assert not torch.equal(alone[0]["loss"], alone[1]["loss"])
    mean = {name: (alone[0][name] + alone[1][name]) / 2 for name in alone[0]}
    for result, own in zip(two_processes["apart"], alone, strict=True):
        assert_equal(result, mean | {"loss": own["loss"]}, 1e-10)


def test_batch_norms_in_the_encoder_are_refused():
    refuse_batch_statistics(make_model().encoder)
    with pytest.raises(ValueError, match="--chunk"):
        refuse_batch_statistics(nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2)))
