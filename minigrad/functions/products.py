"""Products of tensors."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from minigrad import ops
from minigrad.engine import apply
from minigrad.errors import ShapeError
from minigrad.functions.convert import as_group, as_pair
from minigrad.functions.creation import eye
from minigrad.tensor import Tensor

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def matmul(x: Any, y: Any) -> Tensor:
    """Matrix product of the last two axes; leading axes broadcast; vectors as NumPy treats them."""
    return apply(ops.matmul.matmul, *as_pair(x, y))


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
