import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from minigrad.kernels.cpu.tuning import tune_process

def faults_of_a_second_use():
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        arrays = [np.ones(1 << 19) for _ in range(4)]  # 4 MB each
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

untuned = faults_of_a_second_use()
assert tune_process()
assert np.getbufsize() == 512
faults_of_a_second_use()
tuned = faults_of_a_second_use()
assert tuned < 100 < untuned, (tuned, untuned)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_memory_is_kept():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
