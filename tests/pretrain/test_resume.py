import json
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from nnunetv2_voco.pretrain import loop
from nnunetv2_voco.pretrain.cli import main
from nnunetv2_voco.pretrain.log import read_records
from tests.pretrain.tiny_run import SETTINGS, options, same_bits, start, weights, write_ct

pytestmark = pytest.mark.slow

STEPS = {"steps": 40, "val_every": 16, "save_every": 3, "num_workers": 1, "decoder_weight": 1.0}


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ct(tmp_path_factory.mktemp("input") / "ct")


@pytest.fixture(scope="module")
def whole(ct: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Weights of a run that was never interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finish(ct, "-o", out, *options(**STEPS))
    return weights(out)


def finish(*arguments: object) -> str:
    process = start(*arguments, "-np", "1")
    output, _ = process.communicate(timeout=150)
    assert process.returncode == 0, output
    return output


def interrupt(*arguments: object, when, number: int = signal.SIGKILL) -> tuple[int, str]:
    """Start a run, send it a signal as soon as `when()` is true; exit code and output."""
    process = start(*arguments, "-np", "1")
    deadline = time.monotonic() + 100
    while not when() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[0]
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def step_reached(out: Path, step: int):
    log = out / "log.jsonl"
    return lambda: log.exists() and any(record["step"] >= step for record in read_records(log))


def cached(out: Path, volumes: int):
    return lambda: len(list((out / "cache").rglob("??/*.json"))) >= volumes


def test_run_killed_again_and_again_ends_with_the_same_weights(ct: Path, tmp_path: Path, whole):
    out = tmp_path / "run"
    moments = [cached(out, 2), cached(out, 5), step_reached(out, 0), step_reached(out, 7), step_reached(out, 23)]
    for number, moment in enumerate(moments):
        code, _ = interrupt(ct, "-o", out, *(["--continue"] if number else []), *options(**STEPS), when=moment)
        assert code == -signal.SIGKILL
    finish(ct, "-o", out, "--continue")
    assert same_bits(weights(out), whole)
    steps = [r["step"] for r in read_records(out / "log.jsonl") if r["kind"] == "training"]
    assert steps == list(range(1, 41))
    assert [r["step"] for r in read_records(out / "log.jsonl") if r["kind"] == "validation"] == [0, 16, 32, 40]
    assert not list(out.glob(".*.tmp"))
    assert (out / "volumes.png").exists()


def test_kill_during_pre_processing_leaves_no_process_behind(ct: Path, tmp_path: Path):
    mark = str(tmp_path)
    process = start(ct, "-o", tmp_path / "run", "-np", "2", *options(**STEPS), env={"VOCO_MARK": mark})
    while process.poll() is None and not cached(tmp_path / "run", 1)():
        time.sleep(0.01)
    process.kill()
    process.communicate()
    for _ in range(100):
        if not processes_with(mark):
            return
        time.sleep(0.1)
    raise AssertionError(f"still running: {processes_with(mark)}")


def processes_with(mark: str) -> list[str]:
    """Processes whose environment holds `mark`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if f"VOCO_MARK={mark}\0".encode() in environment:
            found.append(f"{folder.name} {command!r}")
    return found


@pytest.fixture
def one_thread():
    """As many threads as the runs in processes of their own: sums in another order have other bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_says_so_and_the_run_goes_on_from_there_without_folders(ct: Path, tmp_path: Path, whole, number):
    out = tmp_path / "run"
    code, output = interrupt(ct, "-o", out, *options(**STEPS), when=step_reached(out, 4), number=number)
    assert code == 0, output
    assert "state is saved" in output
    assert "--continue" in output
    assert "Traceback" not in output
    stopped = torch.load(out / "voco_state.pth", weights_only=True)["progress"]["step"]
    assert f"after step {stopped}" in output
    output = finish("-o", out, "--continue")
    assert "Continuing the run" in output
    assert same_bits(weights(out), whole)


@pytest.mark.usefixtures("one_thread")
def test_run_killed_between_its_two_last_files_is_completed(ct: Path, tmp_path: Path, whole, monkeypatch):
    out = tmp_path / "run"
    arguments = [str(ct), "-o", str(out), "-np", "1", *options(**{**STEPS, "num_workers": 0})]
    calls = []
    for name in ("export_encoder", "save_state"):
        monkeypatch.setattr(loop, name, dying(getattr(loop, name), calls, last=29))
    with pytest.raises(KeyboardInterrupt):
        main(arguments)
    monkeypatch.undo()
    finish("-o", out, "--continue")
    assert same_bits(weights(out), whole)


def dying(function, calls: list, *, last: int):
    """`function`, until it or its sibling has been called `last` times."""

    def call(*arguments, **keywords):
        function(*arguments, **keywords)
        calls.append(function)
        if len(calls) == last:
            raise KeyboardInterrupt

    return call


def test_continuing_with_another_setting_is_refused_by_name(ct: Path, tmp_path: Path, capsys):
    (tmp_path / "run").mkdir()
    stored = {**SETTINGS, "steps": 5}
    stored_text = json.dumps(stored)
    (tmp_path / "run" / "config.json").write_text(stored_text)
    with pytest.raises(SystemExit) as stop:
        main([str(ct), "-o", str(tmp_path / "run"), "--continue", "--lr", "0.5", "--save-every", "7"])
    message = str(stop.value.code)
    assert "lr: 0.001 in the run, 0.5 given" in message
    assert "save_every" not in message
    assert (tmp_path / "run" / "config.json").read_text() == stored_text


def test_continuing_with_other_volumes_is_refused(ct: Path, tmp_path: Path):
    out = tmp_path / "run"
    finish(ct, "-o", out, *options(**{**STEPS, "steps": 2}))
    shutil.rmtree(out / "cache")
    write_ct(tmp_path / "more")
    (tmp_path / "more" / "phantom_000.nii.gz").unlink()
    process = start(tmp_path / "more", "-o", out, "--continue", "-np", "1")
    output, _ = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "not those the run was started with" in output
