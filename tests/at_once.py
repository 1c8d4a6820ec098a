"""Running a function in several threads that begin at the same moment."""

import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np


def at_once(work: Callable[[int], Any], count: int = 4) -> list[Any]:
    """What `work` returns in each thread; it gets the thread's number. If it raises, so does this.

    A Python with its global lock runs one thread at a time, so it is made to change threads often.
    A Python without that lock runs them at the same time.
    """
    results: list[Any] = [None] * count
    errors: list[BaseException] = []
    ready = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            ready.wait()
            results[number] = work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    if errors:
        raise errors[0]
    return results


def assert_equal(ours: Any, theirs: Any) -> None:
    """Equal in structure, and bit for bit in arrays."""
    if isinstance(theirs, np.ndarray):
        np.testing.assert_array_equal(ours, theirs, strict=True)
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_equal(one, other)
    else:
        assert ours == theirs
