import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from nnunetv2_voco.pretrain import distributed
from tests.conftest import ROOT
from tests.pretrain.tiny_run import options, same_bits, start, weights, write_ct

CALL = """
import sys
from nnunetv2_voco.pretrain.cli import main

if __name__ == "__main__":  # pre-processing starts processes that import this file
    main(sys.argv[1:])
"""

GATHER = """
import torch
from nnunetv2_voco.pretrain import distributed

store = distributed.join_store()
distributed.start("cpu", store)
rank = distributed.rank()
x = torch.full((2, 3), float(rank + 1), requires_grad=True)
everyone = distributed.gather(x)
assert everyone[:, 0].tolist() == [1.0, 1.0, 2.0, 2.0], everyone
(everyone * torch.arange(4.0)[:, None]).sum().backward()
assert x.grad[:, 0].tolist() == [[0.0, 2.0], [4.0, 6.0]][rank], x.grad  # twice the own share
assert distributed.any_process(rank == 1, torch.device("cpu"))
assert not distributed.any_process(False, torch.device("cpu"))
assert distributed.broadcast_object({"rank": rank}) == {"rank": 0}
distributed.barrier()
distributed.stop()
"""


def torchrun(script: Path, *arguments: object) -> tuple[int, str]:
    """Run a script in two processes on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    result = subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True, text=True, timeout=150, check=False, cwd=ROOT.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return result.returncode, result.stdout + result.stderr


def write_script(folder: Path, text: str) -> Path:
    path = folder / "script.py"
    path.write_text(text)
    return path


def test_single_process_needs_no_group():
    x = torch.ones(2, 3, requires_grad=True)
    assert distributed.gather(x) is x
    assert distributed.broadcast_object("a") == "a"
    assert distributed.any_process(True, torch.device("cpu"))
    assert distributed.join_store() is None
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    distributed.barrier()
    distributed.stop()


def test_processes_agree_on_a_new_name_each_time_they_meet_in_a_store():
    store = dist.HashStore()
    names = [together(store, 3) for _ in range(2)]
    assert [len(set(name)) for name in names] == [1, 1]
    assert names[0][0] != names[1][0]


def test_process_that_ended_while_it_was_waited_for_is_not_mistaken_for_its_successor():
    store = dist.HashStore()
    store.set("hello/1", "of a process that has ended")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(distributed.meet, store, rank=0, world_size=2)
        store.wait(["welcome/of a process that has ended"], timedelta(seconds=30))
        assert not first.done()  # the ended one never answers
        second = pool.submit(distributed.meet, store, rank=1, world_size=2)
        assert first.result(timeout=30) == second.result(timeout=30)


def together(store: dist.Store, processes: int) -> list[str]:
    """Names that so many processes take away from a meeting."""
    with ThreadPoolExecutor() as pool:
        meetings = [pool.submit(distributed.meet, store, rank=r, world_size=processes) for r in range(processes)]
        return [meeting.result(timeout=30) for meeting in meetings]


@pytest.mark.slow
def test_gathering_concatenates_and_returns_the_gradient_of_the_own_part(tmp_path: Path):
    code, output = torchrun(write_script(tmp_path, GATHER))
    assert code == 0, output


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(tmp_path: Path):
    ct, script = write_ct(tmp_path / "ct"), write_script(tmp_path, CALL)
    common = ("--cache", tmp_path / "cache", "-np", "1")
    alone = start(ct, "-o", tmp_path / "one", *common, *options(batch_size=4, decoder_weight=1.0))
    output, _ = alone.communicate(timeout=150)
    assert alone.returncode == 0, output
    code, output = torchrun(script, ct, "-o", tmp_path / "two", *common, *options(batch_size=2, decoder_weight=1.0))
    assert code == 0, output
    assert output.count("validation at step 8") == 1
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        if name.endswith("conv.bias") or name.endswith("all_modules.0.bias"):
            continue  # an instance norm follows: its gradient is rounding noise, which AdamW makes large
        torch.testing.assert_close(two[name], one[name], atol=2e-4, rtol=2e-3)

    again = start("-o", tmp_path / "two", "--continue", *common)
    output, _ = again.communicate(timeout=150)
    assert again.returncode != 0
    assert "in each of 2 process(es)" in output
    assert same_bits(weights(tmp_path / "two"), two)

    elsewhere = start("-o", tmp_path / "two", "--continue")  # looks for the cache in OUT
    output, _ = elsewhere.communicate(timeout=150)
    assert elsewhere.returncode != 0
    assert "name the run's cache with --cache" in output


@pytest.mark.slow
def test_dry_run_in_two_processes_ends(tmp_path: Path):
    ct, script = write_ct(tmp_path / "ct"), write_script(tmp_path, CALL)
    code, output = torchrun(script, ct, "-o", tmp_path / "out", "--dry-run", "-np", "1", *options())
    assert code == 0, output
    assert output.count("Time: on this machine") == 1
