import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nnunetv2_voco.pretrain.log import RunLog, duration, keep_records_until, read_records


def write_steps(folder: Path, first_step: int, last_step: int, steps: int = 10) -> str:
    console = Console(file=io.StringIO(), width=120)
    with RunLog(folder, first_step=first_step, steps=steps, console=console) as log:
        for step in range(first_step + 1, last_step + 1):
            log.record(step, "training", {"total": 1.0 / step, "started_at": first_step})
            log.advance(step, "loss 1.000")
    return console.file.getvalue()


def steps_in(folder: Path) -> list[int]:
    return [record["step"] for record in read_records(folder / "log.jsonl")]


def test_record_is_one_line_of_json(tmp_path: Path):
    write_steps(tmp_path, 0, 2)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {"step": 2, "kind": "training", "total": 0.5, "started_at": 0}


def test_records_are_on_disk_as_soon_as_written(tmp_path: Path):
    with RunLog(tmp_path, first_step=0, steps=3, console=Console(file=io.StringIO())) as log:
        log.record(1, "training", {"total": 1.0})
        assert steps_in(tmp_path) == [1]


def test_continued_run_writes_no_step_twice(tmp_path: Path):
    write_steps(tmp_path, 0, 6)
    write_steps(tmp_path, 4, 8)
    assert steps_in(tmp_path) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [r["started_at"] for r in read_records(tmp_path / "log.jsonl")] == [0] * 4 + [4] * 4


def test_run_that_begins_again_at_step_0_keeps_nothing(tmp_path: Path):
    (tmp_path / "log.jsonl").write_text('{"step": 0, "kind": "validation"}\n{"step": 1, "kind": "training"}\n')
    keep_records_until(tmp_path / "log.jsonl", 0)
    assert (tmp_path / "log.jsonl").read_text() == ""


def test_line_cut_off_by_a_kill_is_dropped(tmp_path: Path):
    write_steps(tmp_path, 0, 3)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "kin')
    assert steps_in(tmp_path) == [1, 2, 3]
    write_steps(tmp_path, 3, 4)
    assert steps_in(tmp_path) == [1, 2, 3, 4]


def test_number_that_is_not_finite_still_gives_valid_json(tmp_path: Path):
    with RunLog(tmp_path, first_step=0, steps=3, console=Console(file=io.StringIO())) as log:
        log.record(1, "training", {"total": float("nan"), "grad_norm": float("inf"), "lr": 0.5})

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    record = json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=refuse)
    assert record == {"step": 1, "kind": "training", "total": None, "grad_norm": None, "lr": 0.5}


def test_numbers_reach_tensorboard_under_their_kind(tmp_path: Path):
    write_steps(tmp_path, 0, 3)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("training/total")] == [
        (1, 1.0),
        (2, 0.5),
        (3, pytest.approx(1 / 3)),
    ]


def test_lines_without_a_terminal_say_step_and_time_left(tmp_path: Path):
    lines = write_steps(tmp_path, 0, 10).splitlines()
    assert lines[0].startswith("step 1/10  loss 1.000")
    assert lines[-1].endswith("0 s left")


def test_terminal_shows_a_bar(tmp_path: Path):
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    with RunLog(tmp_path, first_step=0, steps=4, console=console) as log:
        log.advance(4, "loss 1.000")
    assert "4/4" in console.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min 01 s"), (7260, "2 h 01 min"), (49 * 3600, "2 days 1 h")],
)
def test_duration_is_said_in_its_two_largest_units(seconds, text):
    assert duration(seconds) == text
