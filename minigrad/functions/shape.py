"""Functions that rearrange, join, cut and pick elements."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np

from minigrad import ops
from minigrad.device import Device
from minigrad.dtypes import beside, fitting, plain_number
from minigrad.engine import apply
from minigrad.errors import ShapeError
from minigrad.functions.convert import as_dtype, as_group, as_tensor, axes_of
from minigrad.functions.elementwise import clone
from minigrad.interchange import plain_index
from minigrad.op import Axis
from minigrad.tensor import Tensor

__all__ = [
    "broadcast_arrays",
    "broadcast_to",
    "concat",
    "concatenate",
    "expand_dims",
    "getitem",
    "matrix_transpose",
    "moveaxis",
    "pad",
    "permute_dims",
    "reshape",
    "scatter_add",
    "split",
    "squeeze",
    "stack",
    "swapaxes",
    "take",
    "to_device",
    "transpose",
    "unstack",
]


def reshape(x: Any, shape: int | Sequence[int], *, copy: bool | None = None) -> Tensor:
    """The same elements in another shape; one size may be -1.

    `copy=True` gives new memory; with False it is an error if the old cannot be shared.

    Raises:
        ShapeError: the elements do not fit the shape.
        ValueError: a copy is needed and forbidden.
    """
    x = as_tensor(x)
    result = apply(ops.shape.reshape, x, shape=_as_shape(shape))
    if copy is None:
        return result
    shared = x.device.xp.may_share_memory(result.array, x.array)
    if not copy and not shared and x.size:
        raise ValueError(f"reshape of shape {x.shape} to {result.shape} needs a copy")
    return clone(result) if copy and shared else result


def transpose(x: Any, axes: Sequence[int] | None = None) -> Tensor:
    """Axes in the given order, or reversed."""
    x = as_tensor(x)
    order = tuple(range(x.ndim))[::-1] if axes is None else axes_of("transpose", axes, x.ndim)
    if len(order) != x.ndim:
        raise ShapeError(
            f"transpose of shape {x.shape}: {axes} does not name every axis once; "
            "swapaxes exchanges two axes"
        )
    return apply(ops.shape.transpose, x, axes=order)


permute_dims: Final = transpose


def matrix_transpose(x: Any) -> Tensor:
    """The last two axes exchanged.

    Raises:
        ShapeError: there is only one.
    """
    return swapaxes(x, -1, -2)


def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Axes moved to other places; the rest stay in order."""
    x = as_tensor(x)
    old, new = (axes_of("moveaxis", axes, x.ndim) for axes in (source, destination))
    if len(old) != len(new):
        raise ShapeError(f"moveaxis: {len(old)} axes cannot go to {len(new)} places")
    order = [a for a in range(x.ndim) if a not in old]
    for place, axis in sorted(zip(new, old, strict=True)):
        order.insert(place, axis)
    return transpose(x, order)


def swapaxes(x: Any, axis1: int, axis2: int) -> Tensor:
    """Two axes exchanged."""
    x = as_tensor(x)
    first, second = (axes_of("swapaxes", (a,), x.ndim)[0] for a in (axis1, axis2))
    order = list(range(x.ndim))
    order[first], order[second] = order[second], order[first]
    return apply(ops.shape.transpose, x, axes=tuple(order))


def squeeze(x: Any, axis: Axis = None) -> Tensor:
    """Axes of size 1 dropped: all, or those given."""
    x = as_tensor(x)
    if axis is None:
        shape = tuple(n for n in x.shape if n != 1)
    else:
        axes = axes_of("squeeze", axis, x.ndim)
        if any(x.shape[a] != 1 for a in axes):
            raise ShapeError(f"squeeze of shape {x.shape}: axis {axis} does not have size 1")
        shape = tuple(n for i, n in enumerate(x.shape) if i not in axes)
    return apply(ops.shape.reshape, x, shape=shape)


def expand_dims(x: Any, axis: int | Sequence[int]) -> Tensor:
    """New axes of size 1 at the given positions of the result."""
    x = as_tensor(x)
    ndim = x.ndim + (1 if hasattr(axis, "__index__") else len(axis))
    axes = axes_of("expand_dims", axis, ndim)
    sizes = iter(x.shape)
    shape = tuple(1 if i in axes else next(sizes) for i in range(ndim))
    return apply(ops.shape.reshape, x, shape=shape)


def broadcast_to(x: Any, shape: int | Sequence[int]) -> Tensor:
    """x repeated along axes of size 1 and new leading axes."""
    return apply(ops.shape.broadcast_to, as_tensor(x), shape=_as_shape(shape))


def broadcast_arrays(*tensors: Any) -> list[Tensor]:
    """All of them in the shape that they have together."""
    parts = [as_tensor(x) for x in tensors]
    try:
        shape = np.broadcast_shapes(*(x.shape for x in parts))
    except ValueError as error:
        shapes = " and ".join(str(x.shape) for x in parts)
        raise ShapeError(f"broadcast_arrays of shapes {shapes}: {error}") from error
    return [broadcast_to(x, shape) for x in parts]


def require_list(name: str, axis: Any) -> None:
    """Raise TypeError for a tensor as the axis, as in `stack(x, y)`."""
    if isinstance(axis, Tensor):
        raise TypeError(f"{name} joins the tensors of one list: {name}([x, y])")


def concatenate(tensors: Sequence[Any], axis: int | None = 0) -> Tensor:
    """Tensors one after the other along an existing axis, or flattened if `axis` is None."""
    require_list("concatenate", axis)
    tensors = list(tensors)  # a generator as well
    parts = as_group(*tensors) if tensors else []
    if not parts:
        raise ValueError("concatenate needs at least one tensor")
    if axis is None:
        parts, axis = [reshape(x, -1) for x in parts], 0
    return apply(ops.shape.concatenate, *parts, axis=axis)


concat: Final = concatenate


def stack(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors of one shape along a new axis."""
    require_list("stack", axis)
    tensors = list(tensors)  # a generator as well
    parts = as_group(*tensors) if tensors else []
    if not parts:
        raise ValueError("stack needs at least one tensor")
    if len({x.shape for x in parts}) > 1:
        raise ShapeError(f"stack needs equal shapes, not {[x.shape for x in parts]}")
    return concatenate([expand_dims(x, axis) for x in parts], axis)


def unstack(x: Any, axis: int = 0) -> tuple[Tensor, ...]:
    """The parts of x along `axis`, without it: the opposite of `stack`."""
    x = as_tensor(x)
    (axis,) = axes_of("unstack", (axis,), x.ndim)
    before = (slice(None),) * axis
    return tuple(x[(*before, i)] for i in range(x.shape[axis]))


def split(x: Any, sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Cut along `axis` into equal sections, or before each of the given positions.

    Raises:
        ShapeError: the axis cannot be cut into that many equal sections.
    """
    x = as_tensor(x)
    (axis,) = axes_of("split", (axis,), x.ndim)
    size = x.shape[axis]
    if isinstance(sections, (int, np.integer)):
        if sections < 1 or size % sections:
            raise ShapeError(f"split of shape {x.shape}: {size} is not {sections} equal sections")
        step = size // sections
        bounds = list(range(0, size + 1, step))
    else:
        bounds = [0, *sections, size]
    before = (slice(None),) * axis
    return [x[(*before, slice(a, b))] for a, b in pairwise(bounds)]


def pad(x: Any, pad_width: Any, constant_values: float = 0) -> Tensor:
    """x with constant borders: one width for all, (before, after), or a pair for each axis."""
    x = as_tensor(x)
    try:
        widths = np.broadcast_to(np.asarray(pad_width), (x.ndim, 2))
    except ValueError as error:
        raise ShapeError(
            f"pad of shape {x.shape}: widths {pad_width} are no number, no pair, and no pair for "
            "each axis"
        ) from error
    pairs = tuple((int(before), int(after)) for before, after in widths)
    number = plain_number(constant_values)
    x = as_dtype(x, beside(x.dtype, number))
    return apply(ops.shape.pad, x, widths=pairs, value=fitting(number, x.dtype))


def getitem(x: Any, index: Any) -> Tensor:
    """x[index]: slices, integers, None, Ellipsis, integer and boolean arrays or tensors."""
    return apply(ops.indexing.getitem, as_tensor(x), index=plain_index(index))


def take(x: Any, indices: Any, axis: int | None = None) -> Tensor:
    """Elements at `indices` along `axis`, or of the flattened tensor."""
    x = as_tensor(x)
    if axis is None:
        return getitem(reshape(x, -1), plain_index(indices))
    (axis,) = axes_of("take", (axis,), x.ndim)
    return getitem(x, ((slice(None),) * axis) + (plain_index(indices),))


def scatter_add(x: Any, index: Any, shape: Sequence[int]) -> Tensor:
    """Zeros of `shape` with x added at `index`: what the gradient of indexing is."""
    return apply(
        ops.indexing.scatter_add, as_tensor(x), index=plain_index(index), shape=_as_shape(shape)
    )


def to_device(x: Tensor, device: Device | str) -> Tensor:
    """x copied to another device; its gradient is copied back."""
    device = Device(device) if isinstance(device, str) else device
    return apply(ops.transfer.to_device, x, device=device, source=x.device)


def _as_shape(shape: Any) -> tuple[int, ...]:
    if isinstance(shape, (int, np.integer)):
        return (int(shape),)
    return tuple(operator.index(n) for n in shape)
