"""Limiting BLAS to one thread while workers compute, or a generator's small matmuls.

The number of threads decides how BLAS splits a matmul, so it affects the last bits. In most builds
it is a setting of the whole process, and two trainings in two threads must not undo each other's
limit. So the first one sets it, and the last one restores it. In builds on OpenMP each thread has
its own setting, so each sets it.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from minigrad.settings import Setting
from minigrad.state import STATE, setting

_lock = threading.Lock()
_everybodys: list[Any] = []  # libraries with one setting for the process
_own: list[Any] = []  # those with one for each thread
_before: list[tuple[Any, int]] = []  # what to restore when the last user is gone
_users = 0


def find_blas() -> None:
    """Look for BLAS libraries, also for those imported since. It takes a millisecond."""
    from threadpoolctl import ThreadpoolController  # here, as `import minigrad` must be quick

    found = [
        library
        for library in ThreadpoolController().lib_controllers
        if library.user_api == "blas" and library.num_threads is not None
    ]
    with _lock:
        _own[:] = [b for b in found if getattr(b, "threading_layer", None) == "openmp"]
        _everybodys[:] = [b for b in found if b not in _own]
        if _users:
            _limit(_everybodys, _before)
        if STATE.blas_users:
            _limit(_own, STATE.blas_before)


def blas_threads() -> int:
    """How many threads a matmul of this thread may use now."""
    if not _everybodys and not _own:
        find_blas()
    with _lock:
        return max([library.get_num_threads() for library in (*_everybodys, *_own)], default=1)


def sharing() -> Setting:
    """Context manager: kernels on the CPU may use as many threads as BLAS has now.

    See `minigrad.kernels.cpu.threads`.
    """
    return setting(threads=blas_threads())


class OneBlasThread:
    """Context manager. If nothing has to be done it takes a microsecond, little for each token.

    It may be entered in several threads at once, and nested.
    """

    def __enter__(self) -> None:
        global _users
        if not _everybodys and not _own:
            find_blas()
        with _lock:
            if not _users:
                _limit(_everybodys, _before)
            if not STATE.blas_users:
                _limit(_own, STATE.blas_before)
            _users += 1
            STATE.blas_users += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        global _users
        with _lock:
            _users -= 1
            STATE.blas_users -= 1
            if not _users:
                _restore(_before)
            if not STATE.blas_users:
                _restore(STATE.blas_before)


def _limit(libraries: list[Any], before: list[tuple[Any, int]]) -> None:
    for library in libraries:
        threads = library.get_num_threads()
        if threads > 1:
            before.append((library, threads))
            _set(library, 1)


def _restore(before: list[tuple[Any, int]]) -> None:
    while before:
        _set(*before.pop())


def _set(library: Any, threads: int) -> None:
    """Set a library's threads from whichever thread this is.

    threadpoolctl lets only the thread that did it first do it again, and ignores others, unless it
    is made to forget that thread.
    """
    forget = getattr(library, "clear_controlling_thread", None)
    if forget is not None:
        forget(force=True)
    library.set_num_threads(threads)
    if forget is not None:
        forget(force=True)


__all__ = [
    "OneBlasThread",
    "blas_threads",
    "find_blas",
    "sharing",
]
