"""Comparing a kernel with its op's textbook, in one line of a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.autograd import grad
from minigrad.device import Device
from minigrad.engine import apply
from minigrad.op import Op
from minigrad.state import no_grad, textbook
from minigrad.tensor import Tensor


class KernelError(AssertionError):
    """A kernel does not do what its op's textbook does."""


def check_kernel(
    op: type[Op],
    *arrays: Any,
    backend: str = "cpu",
    dtypes: Sequence[Any] = (np.float32, np.float64),
    tolerance: float = 40.0,
    seed: int = 0,
    **statics: Any,
) -> None:
    """Raise unless the kernel of `op` gives the textbook's values and gradients.

    The upstream gradient is random. Other inputs are tried in between, while the first results are
    alive, to find memory that is wrongly used twice. The inputs must not be changed, and `infer`
    must give the same as `forward`.

    Args:
        op: the op; it has a kernel for `backend` (see `minigrad.kernel`).
        arrays: the inputs; None for an optional one that is left out. Floats are differentiated.
        backend: "cpu" or "gpu" (also called "cuda").
        dtypes: what the floats are converted to, one after the other.
        tolerance: the largest allowed error, in roundings of the largest element.
        seed: of the upstream gradient and the other inputs.
        statics: options of the op.

    Raises:
        KernelError: says what differs, by how much.
        ValueError: there is no such kernel, or it does not support these inputs.
    """
    backend = {"cuda": "gpu"}.get(backend, backend)
    if backend not in op.kernels:
        raise ValueError(f"check_kernel: {op.name!r} has no kernel for {backend!r}")
    pair, device = op.kernels[backend], Device(backend)
    rng = np.random.default_rng(seed)
    for dtype in dtypes:
        inputs = [None if a is None else _converted(np.asarray(a), dtype) for a in arrays]
        others = [_shuffled(a, rng) for a in inputs]
        placed = [None if a is None else device.asarray(a.copy()) for a in inputs]
        reason = pair.supports(*placed, **statics) if hasattr(pair, "supports") else None
        if reason is not None:
            raise ValueError(f"check_kernel: the kernel of {op.name!r} is not run: {reason}")
        with textbook():
            y, _ = _run(op, inputs, device, None, statics)
            upstream = rng.standard_normal(y.shape).astype(y.dtype)
            wanted = _run(op, inputs, device, upstream, statics)
        value, _ = _run(op, inputs, device, None, statics)
        _compare(f"{op.name}, {np.dtype(dtype)}: the value", value, wanted[0], tolerance)
        first = _run(op, inputs, device, upstream, statics)
        kept = [a.array.copy() for a in _flat(first)]
        _run(op, others, device, upstream, statics)
        for found, copy in zip(_flat(first), kept, strict=True):
            if not _equal(found.array, copy):
                raise KernelError(f"{op.name}: a later call has changed an earlier result")
        names = ["the value", *[f"gradient {i}" for i, a in enumerate(inputs) if _is_float(a)]]
        for name, found, reference in zip(names, _flat(first), _flat(wanted), strict=True):
            _compare(f"{op.name}, {np.dtype(dtype)}: {name}", found, reference, tolerance)
        if hasattr(pair, "infer"):
            with no_grad():
                tensors = [None if a is None else Tensor(device.asarray(a)) for a in inputs]
                _compare(f"{op.name}: infer", apply(op, *tensors, **statics), wanted[0], tolerance)


def _run(
    op: type[Op], inputs: Sequence[Any], device: Device, upstream: Any, statics: dict[str, Any]
) -> tuple[Tensor, list[Tensor]]:
    """The value, and the gradients of all floats if there is an upstream gradient."""
    tensors = [
        None if a is None else Tensor.wrap(device.asarray(a.copy())).detach() for a in inputs
    ]
    for t, a in zip(tensors, inputs, strict=True):
        if t is not None:
            t.requires_grad = _is_float(a)
    y = apply(op, *tensors, **statics)
    if upstream is None or not y.requires_grad:
        return y, []
    wanted = [t for t in tensors if t is not None and t.requires_grad]
    seed = Tensor.wrap(device.asarray(upstream.copy()))
    found = grad(y, wanted, seed, retain_graph=True, allow_unused=True)
    zeros = [
        Tensor.wrap(t.array * 0) if g is None else g for g, t in zip(found, wanted, strict=True)
    ]
    for t, a in zip(tensors, inputs, strict=True):
        if t is not None and not _equal(t.array, device.asarray(a)):
            raise KernelError(f"{op.name}: an input was changed")
    return y, zeros


def _flat(result: tuple[Tensor, list[Tensor]]) -> list[Tensor]:
    return [result[0], *result[1]]


def _converted(array: np.ndarray, dtype: Any) -> np.ndarray:
    return array.astype(dtype) if _is_float(array) else array


def _shuffled(array: np.ndarray | None, rng: np.random.Generator) -> np.ndarray | None:
    """Other inputs of the same kind: the same numbers in another order."""
    return array if array is None else rng.permuted(array.reshape(-1)).reshape(array.shape)


def _is_float(array: Any) -> bool:
    return array is not None and array.dtype.kind == "f"


def _equal(x: Any, y: Any) -> bool:
    return bool(((x == y) | ((x != x) & (y != y))).all())


def _compare(what: str, found: Tensor, wanted: Tensor, tolerance: float) -> None:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        raise KernelError(
            f"{what} has shape {found.shape} and dtype {found.dtype}, the textbook's "
            f"{wanted.shape} and {wanted.dtype}"
        )
    if wanted.dtype.kind != "f":
        if not _equal(found.array, wanted.array):
            raise KernelError(f"{what} is not the textbook's")
        return
    x, y = (np.asarray(t.detach().numpy(), np.float64) for t in (found, wanted))
    scale = np.abs(y).max(initial=0.0) or 1.0
    error = np.abs(x - y).max(initial=0.0) / scale
    limit = tolerance * float(np.finfo(wanted.dtype).eps)
    if not error <= limit:
        raise KernelError(
            f"{what} is off by {error:.1e} of the textbook's largest element; {limit:.1e} is "
            "what rounding may do. Look at both with minigrad.textbook() in a debugger."
        )
