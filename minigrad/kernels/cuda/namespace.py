"""CuPy with another `matmul`: one that can be captured in a CUDA graph, as CuPy's cannot."""

from __future__ import annotations

from typing import Any

from minigrad.device import cupy
from minigrad.kernels.cuda.gemm import multiply


class Namespace:
    """The functions of CuPy, except for `matmul`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(cupy(), name)

    def matmul(self, a: Any, b: Any) -> Any:
        """a @ b, (..., M, K) @ (..., K, N) -> (..., M, N), one launch for each pair of matrices.

        Raises:
            ValueError: the shapes do not fit, or differ in more than M and N.
        """
        if a.shape[:-2] != b.shape[:-2]:
            raise ValueError(f"no matrix products of shapes {a.shape} and {b.shape}")
        out = cupy().empty((*a.shape[:-1], b.shape[-1]), a.dtype)
        _multiply(a, b, out)
        return out


def _multiply(a: Any, b: Any, out: Any) -> None:
    if a.ndim == 2:
        multiply(a, b, into=out)
        return
    for number in range(len(out)):
        _multiply(a[number], b[number], out[number])
