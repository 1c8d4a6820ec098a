"""Products of tensors."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from minigrad import ops
from minigrad.engine import apply
from minigrad.errors import ShapeError
from minigrad.functions.convert import as_group, as_pair, axes_of
from minigrad.functions.creation import eye
from minigrad.functions.elementwise import multiply
from minigrad.functions.shape import expand_dims, moveaxis, reshape, squeeze, transpose
from minigrad.tensor import Tensor

__all__ = ["dot", "einsum", "matmul", "outer", "tensordot", "vecdot"]

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def matmul(x: Any, y: Any) -> Tensor:
    """Matrix product of the last two axes; leading axes broadcast; vectors as NumPy treats them."""
    return apply(ops.matmul.matmul, *as_pair(x, y))


def dot(x: Any, y: Any) -> Tensor:
    """x·y of numbers, otherwise Σ over the last axis of x and the last but one of y, as NumPy."""
    x, y = as_pair(x, y)
    if x.ndim == 0 or y.ndim == 0:
        return multiply(x, y)
    if x.ndim <= 2 and y.ndim <= 2:
        return matmul(x, y)
    return tensordot(x, y, ([-1], [-2 if y.ndim > 1 else -1]))


def vecdot(x: Any, y: Any, axis: int = -1) -> Tensor:
    """Σ x·y along `axis`."""
    x, y = as_pair(x, y)
    for operand in (x, y):
        axes_of("vecdot", (axis,), operand.ndim)
    if x.shape[axis] != y.shape[axis]:
        raise ShapeError(f"vecdot of shapes {x.shape} and {y.shape}: axis {axis} differs")
    rows, columns = expand_dims(moveaxis(x, axis, -1), -2), expand_dims(moveaxis(y, axis, -1), -1)
    return squeeze(matmul(rows, columns), (-2, -1))


def outer(x: Any, y: Any) -> Tensor:
    """All products of an element of x (N,) with one of y (M,): (N, M). Others are flattened."""
    x, y = as_pair(x, y)
    return multiply(reshape(x, (-1, 1)), reshape(y, (1, -1)))


def tensordot(x: Any, y: Any, axes: Any = 2) -> Tensor:
    """Σ x·y over axes of both: the last `axes` of x with the first of y, or two lists of axes.

    The result has the other axes of x, then those of y.
    """
    x, y = as_pair(x, y)
    if hasattr(axes, "__index__"):
        if not 0 <= axes <= min(x.ndim, y.ndim):
            raise ShapeError(f"tensordot: {axes} axes of shapes {x.shape} and {y.shape}")
        summed_x, summed_y = tuple(range(x.ndim - axes, x.ndim)), tuple(range(axes))
    else:
        summed_x = axes_of("tensordot", axes[0], x.ndim)
        summed_y = axes_of("tensordot", axes[1], y.ndim)
    sizes = [x.shape[a] for a in summed_x]
    if sizes != [y.shape[a] for a in summed_y]:
        raise ShapeError(f"tensordot of shapes {x.shape} and {y.shape}: the axes {axes} differ")
    left_x = [a for a in range(x.ndim) if a not in summed_x]
    left_y = [a for a in range(y.ndim) if a not in summed_y]
    rows, columns = [x.shape[a] for a in left_x], [y.shape[a] for a in left_y]
    x = reshape(transpose(x, [*left_x, *summed_x]), (prod(rows), prod(sizes)))
    y = reshape(transpose(y, [*summed_y, *left_y]), (prod(sizes), prod(columns)))
    return reshape(matmul(x, y), (*rows, *columns))


def einsum(subscripts: str, *operands: Any) -> Tensor:
    """A sum of products in Einstein's notation, as `numpy.einsum`.

    Ellipses, an implicit output and repeated indices (traces and diagonals) are understood.

    Raises:
        ShapeError: the subscripts do not fit the operands.
        TypeError: there are no subscripts, or no operands.
    """
    if not isinstance(subscripts, str) or not operands:
        raise TypeError('einsum takes subscripts, then operands: einsum("ij,jk->ik", a, b)')
    tensors = as_group(*operands)
    terms, output = _explicit(subscripts, tensors)
    for i, term in enumerate(list(terms)):
        terms[i], identities = _without_repeats(term, terms, output)
        for pair in identities:
            size = tensors[i].shape[terms[i].index(pair[1])]
            tensors.append(eye(size, tensors[i].dtype, device=tensors[i].device))
            terms.append(pair)
    if len(tensors) > 2:
        return _along_a_path(tensors, terms, output)
    return apply(ops.matmul.einsum, *tensors, subscripts=",".join(terms) + "->" + output)


def _along_a_path(tensors: list[Tensor], terms: list[str], output: str) -> Tensor:
    """Few operands at a time, in the order that NumPy finds cheapest, and so are the gradients."""
    subscripts = ",".join(terms) + "->" + output
    try:
        path = _path(subscripts, *(x.shape for x in tensors))
    except ValueError as error:
        names = " and ".join(str(x.shape) for x in tensors)
        raise ShapeError(f"einsum {subscripts!r} of shapes {names}: {error}") from error
    for positions in path:
        some = [tensors.pop(p) for p in sorted(positions, reverse=True)]
        some_terms = [terms.pop(p) for p in sorted(positions, reverse=True)]
        wanted = output + "".join(terms)
        left = "".join(c for c in dict.fromkeys("".join(some_terms)) if c in wanted)
        left = left if tensors else output
        tensors.append(
            apply(ops.matmul.einsum, *some, subscripts=",".join(some_terms) + "->" + left)
        )
        terms.append(left)
    return tensors[0]


@lru_cache(maxsize=256)
def _path(subscripts: str, *shapes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Which operands to multiply in each step. Looking for it takes longer than small products."""
    operands = [np.broadcast_to(np.float32(0), shape) for shape in shapes]
    return np.einsum_path(subscripts, *operands, optimize="greedy")[0][1:]


def _explicit(subscripts: str, tensors: list[Tensor]) -> tuple[list[str], str]:
    """Terms and output with every index a letter."""
    left, arrow, output = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(tensors):
        shapes = " and ".join(str(x.shape) for x in tensors)
        raise ShapeError(f"einsum {subscripts!r} has {len(terms)} terms, the operands are {shapes}")
    named = [len(term.replace("...", "")) for term in terms]
    extra = max(
        (x.ndim - n for term, x, n in zip(terms, tensors, named, strict=True) if "..." in term),
        default=0,
    )
    free = [c for c in _LETTERS if c not in subscripts][: max(extra, 0)]
    for i, (term, x, n) in enumerate(zip(terms, tensors, named, strict=True)):
        missing = x.ndim - n
        if missing < 0 or ("..." not in term and missing):
            raise ShapeError(f"einsum {subscripts!r}: {term!r} does not fit shape {x.shape}")
        terms[i] = term.replace("...", "".join(free[len(free) - missing :]) if missing else "")
    if arrow:
        if free and "..." not in output:
            shapes = " and ".join(str(x.shape) for x in tensors)
            raise ShapeError(f"einsum {subscripts!r} of shapes {shapes}: the output lacks '...'")
        return terms, output.replace("...", "".join(free))
    letters = "".join(terms)
    once = sorted(c for c in set(letters) if letters.count(c) == 1 and c not in free)
    return terms, "".join(free) + "".join(once)


def _without_repeats(term: str, terms: list[str], output: str) -> tuple[str, list[str]]:
    """Rename repeated indices: A_ii is A_ij·δ_ij. Returns the new term and the pairs of δ."""
    result, identities = "", list[str]()
    for letter in term:
        if letter in result:
            used = "".join(terms) + output + result + "".join(identities)
            fresh = next(c for c in _LETTERS if c not in used)
            identities.append(letter + fresh)
            result += fresh
        else:
            result += letter
    return result, identities
