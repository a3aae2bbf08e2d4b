import subprocess
import sys

import pytest

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
