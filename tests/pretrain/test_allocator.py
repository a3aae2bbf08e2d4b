import subprocess
import sys

import pytest

from nnunetv2_voco.pretrain.allocator import has_room_to_keep, peak_memory

COUNT_FAULTS = """
import resource, sys
import numpy as np
from nnunetv2_voco.pretrain.allocator import keep_freed_memory

if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("not glibc")

def use_64_mb() -> None:
    np.ones(16 << 20, np.float32)

use_64_mb()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    use_64_mb()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    run = subprocess.run([sys.executable, "-c", COUNT_FAULTS, how], capture_output=True, text=True)
    if "not glibc" in run.stderr:
        pytest.skip("this C library has no mallopt")
    return int(run.stdout)


def test_memory_that_was_freed_is_not_asked_of_the_system_again():
    assert page_faults("keep") < page_faults("default") / 10


def machine(folder, *, available_kb=10**9, group="0::/job", files=None):
    """Write what Linux says of memory, as far as it is read."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable:   {available_kb} kB\n")
    (folder / "proc/self/cgroup").write_text(f"1:cpu:/other\n{group}\n")
    for name, text in (files or {}).items():
        path = folder / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_memory_is_kept_where_the_machine_has_as_much_again_for_every_process(tmp_path):
    kb = int(peak_memory() / 1024)
    assert has_room_to_keep(machine(tmp_path / "large", available_kb=3 * kb))
    assert not has_room_to_keep(machine(tmp_path / "small", available_kb=kb // 2))
    assert not has_room_to_keep(machine(tmp_path / "shared", available_kb=3 * kb), processes=4)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("folder", ["job", ".", "elsewhere"])
def test_the_limit_of_a_job_counts_even_if_it_stands_further_up(tmp_path, version, folder):
    peak = int(peak_memory())
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    base = f"memory/{folder}" if version == 1 else folder
    group = "4:memory:/job/step" if version == 1 else "0::/job/step"

    def left(limit, used, files):
        values = {names[0]: limit, names[1]: used, "memory.stat": f"anon 1\ninactive_file {files}\n"}
        root = tmp_path / f"{limit}-{used}-{files}"
        return has_room_to_keep(machine(root, group=group, files={f"{base}/{k}": str(v) for k, v in values.items()}))

    counts = folder != "elsewhere"  # the limit of somebody else
    assert left(4 * peak, 3 * peak + peak // 2, 0) is not counts
    assert left(4 * peak, 2 * peak, 0)
    assert left(4 * peak, 3 * peak + peak // 2, peak)
    if version == 2:
        assert left("max", 3 * peak, 0)


def test_memory_is_not_kept_where_nothing_is_known(tmp_path):
    assert not has_room_to_keep(tmp_path)
