"""Holding BLAS to one thread where a second costs more than it brings.

A matrix-vector product of a small model takes two microseconds; waking another thread takes longer.
"""

from __future__ import annotations

import functools
from types import TracebackType
from typing import Any

from threadpoolctl import ThreadpoolController


@functools.cache
def _libraries() -> list[Any]:
    return [
        library
        for library in ThreadpoolController().lib_controllers
        if library.user_api == "blas" and library.num_threads is not None
    ]


class OneBlasThread:
    """Context manager, cheap enough for every token: a microsecond where nothing is to be done."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, int]] = []

    def __enter__(self) -> None:
        for library in _libraries():
            threads = library.get_num_threads()
            if threads > 1:
                self._before.append((library, threads))
                library.set_num_threads(1)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._before:
            library, threads = self._before.pop()
            library.set_num_threads(threads)
