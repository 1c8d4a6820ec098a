"""Freed memory: whether the C library and the system keep it. Tested in separate processes."""

import subprocess
import sys
import textwrap

import pytest

LARGE_ARRAYS = """
import numpy as np
from minigrad.parallel.memory import keep_freed_memory, release_freed_memory, use_huge_pages

def of_heap(name):
    total, inside = 0, False
    for line in open("/proc/self/smaps"):
        if "-" in line.split()[0]:
            inside = line.rstrip().endswith("[heap]")
        elif inside and line.startswith(name + ":"):
            total += int(line.split()[1])
    return total

if not keep_freed_memory():
    print("skip: the C library is not glibc")
    raise SystemExit
arrays = [np.arange(2_000_000.0) / 7 for _ in range(10)]
end = np.ones(1000)  # so that they do not lie at the end of the heap
"""


def run(code: str) -> str:
    command = [sys.executable, "-c", LARGE_ARRAYS + textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    if done.stdout.startswith("skip: "):
        pytest.skip(done.stdout.removeprefix("skip: ").strip())
    return done.stdout.strip()


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
def test_freed_memory_is_kept_until_it_is_released() -> None:
    code = """
    before = of_heap("Rss")
    arrays.clear()
    kept = of_heap("Rss")
    release_freed_memory()
    print(before > 140_000, kept > 140_000, of_heap("Rss") < 40_000)
    """
    assert run(code) == "True True True"


@linux
def test_the_heap_goes_into_huge_pages_and_keeps_its_contents() -> None:
    code = """
    if not use_huge_pages():
        print("skip: the system does not give huge pages")
        raise SystemExit
    print(of_heap("AnonHugePages") > 100_000)
    print(all((a == np.arange(2_000_000.0) / 7).all() for a in arrays))
    """
    assert run(code).split() == ["True", "True"]
