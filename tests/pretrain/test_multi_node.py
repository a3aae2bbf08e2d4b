"""Runs over several processes that see each other through the network only, as machines of a cluster do."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pretrain.tiny_run import options, same_bits, weights, write_ct

pytestmark = pytest.mark.slow

SETTINGS = {"steps": 30, "val_every": 30, "save_every": 2, "batch_size": 1}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def arguments(ct: Path, out: Path) -> list[str]:
    return [str(ct), "-o", str(out), *options(**SETTINGS), "-np", "1"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command: list, log: Path, **environment: str) -> subprocess.Popen:
    with log.open("a") as file:
        return subprocess.Popen(
            [str(word) for word in command], stdout=file, stderr=subprocess.STDOUT, env=ENVIRONMENT | environment
        )


def finish(process: subprocess.Popen, log: Path) -> None:
    try:
        code = process.wait(timeout=900)
    finally:
        process.kill()
    assert code == 0, log.read_text()


def last_step(out: Path) -> int:
    """Last step in the log of a run that may be writing it."""
    log = out / "log.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    steps = [json.loads(line)["step"] for line in lines if line.endswith("}")]
    return max(steps, default=0)


def wait_for_step(out: Path, step: int, process: subprocess.Popen, log: Path) -> None:
    while last_step(out) < step:
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def ct(tmp_path_factory) -> Path:
    return write_ct(tmp_path_factory.mktemp("ct"))


@pytest.fixture(scope="module")
def one_machine(ct, tmp_path_factory) -> Path:
    """Two processes of one machine, never interrupted; a first start with --continue and no folder yet."""
    out, log = tmp_path_factory.mktemp("runs") / "one", tmp_path_factory.mktemp("logs") / "one.txt"
    command = [*TORCHRUN, "--standalone", "--nproc_per_node=2", "-m", "nnunetv2_voco.pretrain", *arguments(ct, out)]
    finish(start([*command, "--continue"], log), log)
    return out


def test_two_machines_survive_a_killed_process_and_end_with_the_same_weights(ct, one_machine, tmp_path):
    out, port = tmp_path / "out", free_port()
    logs = [tmp_path / f"node_{i}.txt" for i in range(2)]
    rendezvous = ["--rdzv_backend=c10d", "--rdzv_id=voco", f"--rdzv_endpoint=127.0.0.1:{port}", "--max_restarts=3"]
    run = ["-m", "nnunetv2_voco.pretrain", *arguments(ct, out), "--continue"]
    nodes = [
        start([*TORCHRUN, "--nnodes=2", f"--node_rank={i}", "--nproc_per_node=1", *rendezvous, *run], log)
        for i, log in enumerate(logs)
    ]
    wait_for_step(out, 7, nodes[1], logs[1])
    (worker,) = Path(f"/proc/{nodes[1].pid}/task/{nodes[1].pid}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    for node, log in zip(nodes, logs, strict=True):
        finish(node, log)
    printed = "".join(log.read_text() for log in logs)
    assert "Continuing the run" in printed  # more than once where the other machine had to start again, too
    assert same_bits(weights(out), weights(one_machine))
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["kind"] == "training"] == list(range(1, 31))


def test_process_that_loses_another_says_so_and_how_to_go_on(ct, tmp_path):
    """Without torchrun, which may end the survivor before it has noticed."""
    out, port = tmp_path / "out", str(free_port())
    logs = [tmp_path / f"process_{i}.txt" for i in range(2)]
    group = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-m", "nnunetv2_voco.pretrain", *arguments(ct, out)]
    survivor, killed = (start(command, log, RANK=str(i), **group) for i, log in enumerate(logs))
    wait_for_step(out, 5, survivor, logs[0])
    killed.kill()
    killed.wait()
    try:
        assert survivor.wait(timeout=300) != 0
    finally:
        survivor.kill()
    assert "voco_pretrain: process 0 has lost another one" in logs[0].read_text()
    assert "go on with --continue" in logs[0].read_text()


@pytest.fixture
def slurm(tmp_path) -> dict[str, str]:
    """Stand-ins for the two commands of SLURM that the scripts call; srun starts the command once for every node."""
    programs = {
        "srun": 'while [[ $1 == --* ]]; do shift; done\nfor ((i = 0; i < SLURM_NNODES; i++)); do "$@" & pids+=($!); '
        'done\ntrap \'kill -TERM "${pids[@]}"; wait "${pids[@]}"\' TERM\nfor pid in "${pids[@]}"; do wait "$pid"; done',
        "scontrol": 'if [[ $1 == show ]]; then echo 127.0.0.1; else echo "$@" >> "$REQUEUED"; fi',
    }
    for name, body in programs.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {
        "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "REQUEUED": str(tmp_path / "requeued.txt"),
        "SLURM_JOB_ID": str(10_000 + free_port() % 10_000),
        "SLURM_JOB_NODELIST": "node[1-2]",
    }


@pytest.mark.parametrize(("script", "nodes", "gpus"), [("one_node", 1, 2), ("many_nodes", 2, 1)])
def test_slurm_job_that_runs_out_of_time_saves_requeues_and_goes_on(
    ct, one_machine, tmp_path, slurm, script, nodes, gpus
):
    out, log = tmp_path / "out", tmp_path / "log.txt"
    job = ["bash", ROOT / "docs" / "slurm" / f"{script}.sbatch", *arguments(ct, out)]
    environment = slurm | {"SLURM_NNODES": str(nodes), "SLURM_GPUS_ON_NODE": str(gpus)}
    first = start(job, log, **environment)
    wait_for_step(out, 5, first, log)
    first.send_signal(signal.SIGUSR1)
    finish(first, log)
    assert (tmp_path / "requeued.txt").read_text() == f"requeue {slurm['SLURM_JOB_ID']}\n"
    assert 5 <= last_step(out) < 30
    finish(start(job, log, **environment), log)
    assert same_bits(weights(out), weights(one_machine))
