"""Progress bars that suit the place: a terminal, a notebook, or a pipe, which gets none."""

from __future__ import annotations

import sys
from typing import Any

from tinyalpaca.console import Bar, Tolerant


def progress_bar(text: str, *, total: int, initial: int = 0, quiet: bool = False) -> Any:
    """A bar of `total` steps on standard error; silent if `quiet`, or if nobody would see it."""
    seen = Tolerant(sys.stderr).isatty() or "ipykernel" in sys.modules
    return Bar(
        total=total,
        initial=initial,
        desc=text,
        unit="step",
        dynamic_ncols=True,
        mininterval=0.25,
        leave=False,
        disable=quiet or not seen,
        file=sys.stderr,
    )
