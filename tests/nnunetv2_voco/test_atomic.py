import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunetv2_voco.atomic import ABANDONED_S, remove_abandoned, remove_leftovers, write_atomically, write_json


def fail_half_way(path: Path) -> None:
    path.write_text("half")
    raise RuntimeError("disk full")


def test_content_arrives_under_the_final_name_only(tmp_path: Path):
    write_atomically(tmp_path / "a.txt", lambda path: path.write_text("new"))
    assert (tmp_path / "a.txt").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    seen = []

    def write(path: Path) -> None:
        path.write_text("new")
        seen.append(target.read_text())

    write_atomically(target, write)
    assert seen == ["old"]
    assert target.read_text() == "new"


def test_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError, match="disk full"):
        write_atomically(tmp_path / "a.txt", fail_half_way)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_writer_that_fails_creates_no_file(tmp_path: Path):
    with pytest.raises(RuntimeError, match="disk full"):
        write_atomically(tmp_path / "a.txt", fail_half_way)
    assert not list(tmp_path.iterdir())


def test_writer_may_replace_the_temporary_file(tmp_path: Path):
    def write(path: Path) -> None:
        path.unlink()
        path.write_text("new")

    write_atomically(tmp_path / "a.txt", write)
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_file_mode_respects_the_umask(tmp_path: Path, umask: int, mode: int):
    code = "import sys; from nnunetv2_voco.atomic import write_json; write_json(sys.argv[1], 1)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.json")], check=True, umask=umask)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == mode


def test_json_is_readable_by_a_person(tmp_path: Path):
    write_json(tmp_path / "a.json", {"a": [1, 2], "ü": None})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": [1, 2], "ü": None}
    assert text.count("\n") > 3


def test_leftovers_of_a_killed_writer_are_removed_and_nothing_else(tmp_path: Path):
    for name in (".a.txt.x1y2.tmp", "a.txt", ".hidden", "b.tmp"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"a.txt", ".hidden", "b.tmp"}


def test_temporary_files_go_when_their_writer_must_be_dead_and_not_before(tmp_path: Path):
    (tmp_path / "3f").mkdir()
    now = time.time()
    for name, age_s in {
        ".a.json.x1y2.tmp": 2 * ABANDONED_S,
        "3f/.b.b2nd.x1y2.tmp": 2 * ABANDONED_S,
        "3f/.being_written.x1y2.tmp": 0.5 * ABANDONED_S,
        "3f/b.b2nd": 2 * ABANDONED_S,
        "b.tmp": 2 * ABANDONED_S,
    }.items():
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (now - age_s, now - age_s))
    remove_abandoned(tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"3f/.being_written.x1y2.tmp", "3f/b.b2nd", "b.tmp"}
    remove_abandoned(tmp_path / "nowhere")
