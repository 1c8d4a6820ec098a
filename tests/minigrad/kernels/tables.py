"""Which ops have a kernel on which kind of device."""

from typing import Any

from minigrad.ops import TEXTBOOK


def kernels_of(kind: str) -> dict[str, Any]:
    """Name of an op -> its kernel on "cpu" or "gpu"."""
    return {name: op.kernels[kind] for name, op in TEXTBOOK.items() if kind in op.kernels}
