"""How much memory a process and its children have while something runs.

The peak of the proportional set size (memory that is shared counts in parts), summed over the
processes, sampled. This is the one file that needs psutil, which comes with the extra [bench]: what
imports it at its top cannot be imported where only the tests' own packages are installed.
"""

from __future__ import annotations

import threading

import psutil


class MemoryWatch:
    """Samples the memory of a process and its children while a block runs.

    Args:
        pid: the process.
        interval: seconds between two looks. A look holds the process up for a moment.

    Attributes:
        peak_mb: the most that all of them had together.
    """

    def __init__(self, pid: int, interval: float = 0.02) -> None:
        self._process, self._interval, self.peak_mb = psutil.Process(pid), interval, 0.0
        self._done = threading.Event()

    def _watch(self) -> None:
        done = False
        while not done:
            done = self._done.wait(self._interval)  # the last look is after the block's end
            total = 0
            try:
                for process in [self._process, *self._process.children(recursive=True)]:
                    total += _proportional_set_size(process)
            except psutil.Error:  # the process has ended
                continue
            self.peak_mb = max(self.peak_mb, total / 2**20)

    def __enter__(self) -> MemoryWatch:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


def _proportional_set_size(process: psutil.Process) -> int:
    """Bytes of a process; memory that it shares counts in parts. 0 if the process has ended."""
    try:
        return process.memory_full_info().pss
    except psutil.Error:
        return 0
