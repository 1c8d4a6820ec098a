"""A warning when a slower implementation replaces a kernel."""

import warnings

from minigrad.errors import KernelFallbackWarning

_announced: set[str] = set()


def announce(message: str) -> None:
    """Warn that something slower runs instead of a kernel, once for each message."""
    if message in _announced:
        return
    warnings.warn(message, KernelFallbackWarning, stacklevel=3)
    _announced.add(message)  # after the warning, which may have been turned into an error


__all__ = [
    "announce",
]
