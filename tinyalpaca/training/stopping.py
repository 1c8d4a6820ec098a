"""Requests to stop: Ctrl-C, SIGTERM, a closed terminal, or a time limit."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

NOTICE = b"\nStopping after this step; again to stop at once, without saving.\n"


class StopRequested(Exception):
    """Raised between two steps when a stop was requested.

    Attributes:
        exit_status: as `Stopping.exit_status`.
    """

    def __init__(self, reason: str = "", exit_status: int = 0) -> None:
        super().__init__(reason)
        self.exit_status = exit_status


class TrainingStopped(RuntimeError):
    """Training cannot continue. The message says where and why; the last good weights are saved."""


class Stopping:
    """Remembers a request to stop, so that the loop can finish its step first.

    As a context manager in the main thread it handles SIGINT (Ctrl-C), SIGTERM and SIGHUP (the
    terminal closes). The first signal is remembered; a second Ctrl-C is a KeyboardInterrupt as
    usual. Signals that were ignored before stay ignored, as SIGHUP under nohup. The clock is
    monotonic.

    Args:
        max_minutes: from `start` on; 0 for no limit.

    Attributes:
        signal: the signal that came, or None.
    """

    def __init__(self, max_minutes: float = 0.0) -> None:
        self.signal: int | None = None
        self._limit = max_minutes * 60
        self._began = time.monotonic()
        self._before: dict[int, Any] = {}
        self._at_once = False

    @property
    def out_of_time(self) -> bool:
        """True once `max_minutes` have passed."""
        return bool(self._limit) and time.monotonic() - self._began >= self._limit

    @property
    def wanted(self) -> bool:
        """True if the loop shall stop."""
        return self.signal is not None or self.out_of_time

    @property
    def reason(self) -> str:
        """The reason, in words."""
        if self.signal is None:
            return f"--max-minutes {self._limit / 60:g} have passed"
        return "Ctrl-C" if self.signal == signal.SIGINT else signal.Signals(self.signal).name

    @property
    def exit_status(self) -> int:
        """128 + the signal's number, as shells have it; 0 if the time was up."""
        return 0 if self.signal is None else 128 + self.signal

    def check(self) -> None:
        """Raise `StopRequested` if the loop shall stop."""
        if self.wanted:
            raise StopRequested(self.reason, self.exit_status)

    def wait_for_signal(self, seconds: float) -> bool:
        """True if a signal has come, or comes within this time."""
        end = time.monotonic() + seconds
        while self.signal is None and time.monotonic() < end:
            time.sleep(0.01)
        return self.signal is not None

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Context manager: inside, where there is nothing to save, a signal raises `StopRequested`.

        It is for reading a text, which may take very long and has no steps to stop after.
        """
        if self.signal is not None:
            raise StopRequested(self.reason, self.exit_status)
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # not all systems have the last
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        if self._at_once:
            raise StopRequested(self.reason, self.exit_status)
        with contextlib.suppress(OSError):
            os.write(2, NOTICE)  # print could be in the middle of printing
