"""Measures how much memory a process and its children use while something runs.

It samples the proportional set size (each process counts its part of shared memory), summed over
the processes, and keeps the peak. Only this file needs psutil, from the extra [bench]. So files
that are imported with the tests' own packages must not import it at their top.
"""

from __future__ import annotations

import threading

import psutil


class MemoryWatch:
    """Samples the memory of a process and its children while a block runs.

    Args:
        pid: the process.
        interval: seconds between two samples. Each one slows the process down for a moment.

    Attributes:
        peak_mb: the largest sum of all processes' memory.
    """

    def __init__(self, pid: int, interval: float = 0.02) -> None:
        self._process, self._interval, self.peak_mb = psutil.Process(pid), interval, 0.0
        self._done = threading.Event()

    def _watch(self) -> None:
        done = False
        while not done:
            done = self._done.wait(self._interval)  # the last sample is after the block's end
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
    """The bytes of a process, with its part of shared memory; 0 if the process has ended."""
    try:
        return process.memory_full_info().pss
    except psutil.Error:
        return 0
